//! Licence expressions as manifests write them: identifiers joined by AND, OR (also written `/`) and WITH, with
//! parentheses. Decides whether a set of allowed licences satisfies one. Never looks anything up.

/// Whether the allowed licences are enough. `Err` if the expression cannot be read.
pub(crate) fn satisfied(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, at: 0, allowed };
    let verdict = reader.either();
    match verdict {
        Some(verdict) if reader.at == words.len() => Ok(verdict),
        _ => Err(format!("`{expression}` is not a licence expression")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a [&'a str],
}

impl Reader<'_> {
    /// `a OR b OR c`: one is enough. Each side is read even when the verdict is known, to find what is malformed.
    fn either(&mut self) -> Option<bool> {
        let mut verdict = self.both()?;
        while self.eat("OR") {
            let right = self.both()?;
            verdict = verdict || right;
        }
        Some(verdict)
    }

    /// `a AND b`: binds closer than OR.
    fn both(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.eat("AND") {
            let right = self.one()?;
            verdict = verdict && right;
        }
        Some(verdict)
    }

    /// A licence, a licence with an exception, or something in parentheses.
    fn one(&mut self) -> Option<bool> {
        if self.eat("(") {
            let verdict = self.either()?;
            return self.eat(")").then_some(verdict);
        }
        let licence = *self.words.get(self.at)?;
        if matches!(licence, "AND" | "OR" | "WITH" | ")") {
            return None;
        }
        self.at += 1;
        if self.eat("WITH") {
            let exception = *self.words.get(self.at)?;
            self.at += 1;
            let whole = format!("{licence} WITH {exception}");
            return Some(self.allowed.contains(&whole.as_str()));
        }
        Some(self.allowed.contains(&licence))
    }

    fn eat(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 3] = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn one_allowed_side_of_an_or_is_enough_and_both_of_an_and_are_needed() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "MIT AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "(GPL-3.0 OR MIT) AND Apache-2.0",
            "GPL-3.0 AND MIT OR Apache-2.0",
        ] {
            assert_eq!(satisfied(good, &ALLOWED), Ok(true), "{good}");
        }
        for bad in
            ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH LLVM-exception", "MIT AND (GPL-3.0 OR LGPL-2.1)", "mit"]
        {
            assert_eq!(satisfied(bad, &ALLOWED), Ok(false), "{bad}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT MIT", "MIT WITH", "()"] {
            assert!(satisfied(text, &ALLOWED).is_err(), "{text}");
        }
    }
}
