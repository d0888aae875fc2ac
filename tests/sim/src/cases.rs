//! Seeds that failed once, one a line: `shape | seed | calls | off | why`. They are run for ever, as long as a seed means
//! the same run.

use crate::trouble::Troubles;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The [`crate::script::SHAPE_VERSION`] at which it failed.
    pub shape: u32,
    /// The seed.
    pub seed: u64,
    /// Its first calls; zero is all of them.
    pub calls: usize,
    /// What was off.
    pub off: Troubles,
    /// What was wrong.
    pub why: String,
}

/// The cases in `text`; an error names the line.
pub fn read(text: &str) -> Result<Vec<Case>, String> {
    let lines = text.lines().enumerate().filter(|(_, it)| !it.trim().is_empty() && !it.starts_with('#'));
    lines.map(|(at, line)| parse(line).map_err(|why| format!("line {}: {why}", at + 1))).collect()
}

fn parse(line: &str) -> Result<Case, String> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    let [shape, seed, calls, off, why] = parts[..] else {
        return Err("a case is: shape | seed | calls | off | why".to_owned());
    };
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    if why.is_empty() {
        return Err("a case says why".to_owned());
    }
    Ok(Case {
        shape: u32::try_from(number(shape)?).map_err(|error| error.to_string())?,
        seed: number(seed)?,
        calls: usize::try_from(number(calls)?).map_err(|error| error.to_string())?,
        off: off.parse()?,
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_a_mistake_is_told() {
        let found = read("# about\n\n1 | 7 | 0 | cut,reset | it leaked\n").expect("a case");
        assert_eq!((found[0].seed, found[0].off.to_string()), (7, "cut,reset".to_owned()));
        assert!(read("1 | 7 | 0 | - |").is_err_and(|it| it.contains("line 1")));
        assert!(read("1 | 7").is_err());
    }
}
