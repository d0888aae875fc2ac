//! A page of the documentation taken apart: the files it shows and the commands it tells a reader to type, in order,
//! with the output it promises. Decides whether an output is the promised one; runs nothing.
//!
//! What a page may hold:
//! - ```` ```console ````: lines with `$ ` are commands, continued behind a `\`; what follows is their output. A command
//!   without output only has to succeed. In an output `…` stands for any text, alone on its line for any lines.
//! - ```` ```console exit=1 ````: the block's last command ends with that code.
//! - ```` ```console needs=docker ````: what a test cannot run; only read.
//! - ```` ```yaml file=NAME ````, or any other language: the reader saves it under that name.

/// What a reader does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Saves a file.
    File {
        /// Its name, a path below the reader's folder.
        name: String,
        /// What it holds.
        text: String,
    },
    /// Types a command.
    Command(Command),
}

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The page's line, from 1.
    pub line: usize,
    /// What is typed.
    pub text: String,
    /// The lines it prints; none where the page shows none.
    pub output: Vec<String>,
    /// The code it ends with.
    pub exit: i32,
    /// What has to be there to run it, if not every host has it.
    pub needs: Option<String>,
}

/// Takes a page apart.
///
/// # Errors
/// A block that does not end, or an info string that says nothing known.
pub fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut block = Vec::new();
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some((number, line)) => block.push((number + 1, line)),
                None => return Err(format!("line {}: the block does not end", at + 1)),
            }
        }
        let complain = |what: &str| format!("line {}: {what}", at + 1);
        let words: Vec<&str> = info.split_whitespace().collect();
        match words.as_slice() {
            ["console", attributes @ ..] => {
                steps.extend(console(attributes, &block).map_err(|it| complain(&it))?);
            }
            ["sh" | "bash" | "shell", ..] => return Err(complain("commands stand in a `console` block")),
            [_, attribute] if attribute.starts_with("file=") => {
                let text: String = block.iter().flat_map(|(_, line)| [*line, "\n"]).collect();
                steps.push(Step::File { name: attribute["file=".len()..].to_owned(), text });
            }
            [] | [_] => {}
            _ => return Err(complain("an info string that says nothing known")),
        }
    }
    Ok(steps)
}

fn console(attributes: &[&str], block: &[(usize, &str)]) -> Result<Vec<Step>, String> {
    let (mut exit, mut needs) = (0, None);
    for attribute in attributes {
        match attribute.split_once('=') {
            Some(("exit", code)) => exit = code.parse().map_err(|_| format!("`{attribute}`"))?,
            Some(("needs", what)) => needs = Some(what.to_owned()),
            _ => return Err(format!("`{attribute}` says nothing known")),
        }
    }
    let mut commands: Vec<Command> = Vec::new();
    let mut goes_on = false;
    for (line, text) in block {
        match (text.strip_prefix("$ "), commands.last_mut()) {
            (Some(text), _) => commands.push(Command {
                line: *line,
                text: text.to_owned(),
                output: Vec::new(),
                exit: 0,
                needs: needs.clone(),
            }),
            (None, Some(command)) if goes_on => {
                command.text.push('\n');
                command.text.push_str(text);
            }
            (None, Some(command)) => command.output.push((*text).to_owned()),
            (None, None) => return Err("the block does not begin with a command".into()),
        }
        goes_on = (goes_on || text.starts_with("$ ")) && text.ends_with('\\');
    }
    match commands.last_mut() {
        Some(last) => last.exit = exit,
        None => return Err("a block without a command".into()),
    }
    Ok(commands.into_iter().map(Step::Command).collect())
}

/// Whether `actual` is the output that a page promises; a page that shows none promises nothing.
pub fn is_promised(output: &[String], actual: &str) -> bool {
    let actual: Vec<&str> = actual.lines().map(str::trim_end).collect();
    output.is_empty() || lines_match(output, &actual)
}

fn lines_match(expected: &[String], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=actual.len()).any(|skipped| lines_match(rest, &actual[skipped..]))
        }
        Some((first, rest)) => match actual.split_first() {
            Some((line, others)) => line_matches(first.trim_end(), line) && lines_match(rest, others),
            None => false,
        },
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(page: &str) -> Vec<Command> {
        let commands = steps(page).expect("a good page").into_iter().filter_map(|step| match step {
            Step::Command(command) => Some(command),
            Step::File { .. } => None,
        });
        commands.collect()
    }

    #[test]
    fn files_and_commands_come_in_their_order() {
        let page = "a\n```yaml file=a.yaml\nx: 1\n```\n```console exit=1\n$ one \\\n  two\nsaid\n$ three\n```\n\
                    ```console needs=docker\n$ docker x\n```\n```json\n{}\n```\n";
        let first = Step::File { name: "a.yaml".into(), text: "x: 1\n".into() };
        assert_eq!(steps(page).expect("a good page")[0], first);
        let found = commands(page);
        let of = |it: &Command| (it.line, it.text.clone(), it.output.len(), it.exit, it.needs.is_some());
        let expect = [
            (6, "one \\\n  two".to_owned(), 1, 0, false),
            (9, "three".to_owned(), 0, 1, false),
            (12, "docker x".to_owned(), 0, 0, true),
        ];
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_page_that_would_be_misread_is_refused() {
        for page in [
            "```console\n$ one\n",
            "```console\nno command\n```",
            "```console\n```",
            "```console bogus\n$ one\n```",
            "```console exit=x\n$ one\n```",
            "```sh\none\n```",
            "```yaml title=a\nx\n```",
        ] {
            assert!(steps(page).is_err(), "{page}");
        }
    }

    #[test]
    fn an_output_is_compared_but_for_its_wildcards() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<String>>();
        for (output, actual, expect) in [
            ("", "anything", true),
            ("one", "one", true),
            ("one", "one\ntwo", false),
            ("one\n…", "one\ntwo\nthree", true),
            ("…\nthree", "one\ntwo\nthree", true),
            ("…\ntwo\n…", "one\nthree", false),
            ("a … c", "a b c", true),
            ("a … c", "a b d", false),
            ("… b … d", "a b c d", true),
            ("a…", "b", false),
            ("ab…b", "ab", false),
            ("one", "", false),
        ] {
            assert_eq!(is_promised(&lines(output), actual), expect, "{output} / {actual}");
        }
    }
}
