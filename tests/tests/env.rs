//! `tidegate env`, as a shell takes it.

use std::process::Command;

use tidegate_tests::sdk::program;

/// What a shell has after the lines were taken: the values of these variables.
fn evaluated(arguments: &str, key: Option<&str>, shown: &str) -> (bool, String) {
    let program = program("tidegate");
    let script = format!("eval \"$('{}' env {arguments})\" && printf '%s' \"{shown}\"", program.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env_clear().env("ANTHROPIC_API_KEY", "of-before");
    if let Some(key) = key {
        shell.env("TIDEGATE_KEY", key).env("OTHER_KEY", "vk-other");
    }
    let output = shell.output().expect("a shell");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn a_shell_takes_the_lines_as_they_are() {
    let cases = [
        (
            "claude-code",
            "$ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN [$ANTHROPIC_API_KEY]",
            "http://127.0.0.1:4000 vk-1 []",
        ),
        (
            "claude-code --url https://gateway.example/ --passthrough",
            "$ANTHROPIC_BASE_URL|$ANTHROPIC_CUSTOM_HEADERS|$ANTHROPIC_AUTH_TOKEN$ANTHROPIC_API_KEY",
            "https://gateway.example|x-tidegate-key: vk-1|",
        ),
        ("codex", "$OPENAI_BASE_URL $OPENAI_API_KEY", "http://127.0.0.1:4000/v1 vk-1"),
        ("cursor --key OTHER_KEY", "$OPENAI_BASE_URL $OPENAI_API_KEY", "http://127.0.0.1:4000/v1 vk-other"),
    ];
    for (arguments, shown, expect) in cases {
        assert_eq!(evaluated(arguments, Some("vk-1"), shown), (true, expect.to_owned()), "{arguments}");
    }
}

#[test]
fn the_address_comes_from_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.yaml");
    let text = "listen: 127.0.0.1:4567\nproviders: { anthropic: { passthrough: true } }\n";
    std::fs::write(&path, text).expect("written");
    let arguments = format!("claude-code -c '{}'", path.display());
    let (ok, said) = evaluated(&arguments, Some("vk-1"), "$ANTHROPIC_BASE_URL");
    assert_eq!((ok, said.as_str()), (true, "http://127.0.0.1:4567"));
}

#[test]
fn what_cannot_work_is_said() {
    let (ok, said) = evaluated("claude-code", None, "no key");
    assert!(!ok && said.contains("set it to your virtual key"), "{said}");
    for (arguments, word) in [
        ("cursor --passthrough", "cannot send a key"),
        ("nobody", "claude-code"),
        ("codex --url 'http://a$(id)'", "expected http://"),
        ("codex --key 'A;id'", "letters, digits"),
    ] {
        let output = Command::new(program("tidegate"))
            .arg("env")
            .args(shell_words(arguments))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{arguments}: {said}");
        assert!(output.stdout.is_empty(), "nothing for a shell to take");
    }
}

/// Words between spaces, without their quotes.
fn shell_words(text: &str) -> Vec<String> {
    text.split(' ').map(|it| it.trim_matches('\'').to_owned()).collect()
}
