//! What coding agents need in their environment to call a gateway: lines for a shell. By the agents' own documentation;
//! nothing here is read by the gateway itself.

/// What the lines are made for.
#[derive(Clone, Copy, Debug)]
pub struct AgentSetup<'a> {
    /// Where the gateway is: scheme, host and port, without a path and a slash at the end.
    pub base_url: &'a str,
    /// The variable that holds the virtual key.
    pub key_variable: &'a str,
    /// The agent signs in by itself at the provider, and the gateway passes that on.
    pub passthrough: bool,
}

/// A coding agent.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    /// What the command line calls it.
    pub name: &'static str,
    /// Whether it can sign in by itself at the provider and send the virtual key beside that.
    pub passes_through: bool,
    lines: fn(&AgentSetup<'_>) -> Vec<String>,
}

/// Every agent that is known.
pub const AGENTS: &[Agent] = &[
    Agent { name: "claude-code", passes_through: true, lines: claude_code },
    Agent { name: "codex", passes_through: false, lines: codex },
    Agent { name: "cursor", passes_through: false, lines: cursor },
];

impl Agent {
    /// The lines for a shell. Comments say what cannot be exported.
    pub fn lines(&self, setup: &AgentSetup<'_>) -> Vec<String> {
        (self.lines)(setup)
    }
}

/// The virtual key, which a shell misses with a word where it is not set.
fn key(setup: &AgentSetup<'_>) -> String {
    format!("${{{}:?set it to your virtual key}}", setup.key_variable)
}

fn claude_code(setup: &AgentSetup<'_>) -> Vec<String> {
    let mut lines = vec![format!("export ANTHROPIC_BASE_URL=\"{}\"", setup.base_url)];
    if setup.passthrough {
        lines.push("# Your own sign-in goes to the provider; the virtual key travels beside it.".to_owned());
        lines.push("unset ANTHROPIC_AUTH_TOKEN ANTHROPIC_API_KEY".to_owned());
        lines.push(format!("export ANTHROPIC_CUSTOM_HEADERS=\"x-tidegate-key: {}\"", key(setup)));
    } else {
        lines.push("unset ANTHROPIC_API_KEY".to_owned());
        lines.push(format!("export ANTHROPIC_AUTH_TOKEN=\"{}\"", key(setup)));
    }
    lines.push("# Shows the gateway's models whose names contain `claude`.".to_owned());
    lines.push("export CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY=1".to_owned());
    lines
}

fn codex(setup: &AgentSetup<'_>) -> Vec<String> {
    let AgentSetup { base_url, key_variable, .. } = setup;
    vec![
        format!("export {key_variable}=\"{}\"", key(setup)),
        format!("export OPENAI_BASE_URL=\"{base_url}/v1\""),
        format!("export OPENAI_API_KEY=\"${key_variable}\""),
        "# Recent versions read the address from ~/.codex/config.toml:".to_owned(),
        "#   model_provider = \"tidegate\"".to_owned(),
        "#   [model_providers.tidegate]".to_owned(),
        "#   name = \"Tidegate\"".to_owned(),
        format!("#   base_url = \"{base_url}/v1\""),
        format!("#   env_key = \"{key_variable}\""),
        "#   wire_api = \"responses\"".to_owned(),
    ]
}

fn cursor(setup: &AgentSetup<'_>) -> Vec<String> {
    let base_url = setup.base_url;
    vec![
        format!("export OPENAI_BASE_URL=\"{base_url}/v1\""),
        format!("export OPENAI_API_KEY=\"{}\"", key(setup)),
        "# The editor itself takes both in its settings: the key as OpenAI API key, the address as base URL."
            .to_owned(),
        "# Its vendor's servers make the calls, so the address has to be one that they can reach.".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: AgentSetup<'_> =
        AgentSetup { base_url: "http://127.0.0.1:4000", key_variable: "TIDEGATE_KEY", passthrough: false };

    #[test]
    fn every_line_is_one_a_shell_takes() {
        for agent in AGENTS {
            for passthrough in [false, agent.passes_through] {
                for line in agent.lines(&AgentSetup { passthrough, ..SETUP }) {
                    let known = ["export ", "unset ", "# "].iter().any(|it| line.starts_with(it));
                    assert!(known && !line.contains('\n'), "{}: {line}", agent.name);
                    assert!(line.matches('"').count() % 2 == 0, "{}: {line}", agent.name);
                }
            }
        }
    }

    #[test]
    fn the_key_takes_the_field_that_is_free() {
        let [claude_code, ..] = AGENTS else { panic!("agents") };
        let text = |passthrough| claude_code.lines(&AgentSetup { passthrough, ..SETUP }).join("\n");
        assert!(text(false).contains("export ANTHROPIC_AUTH_TOKEN=\"${TIDEGATE_KEY:?"));
        assert!(text(true).contains("export ANTHROPIC_CUSTOM_HEADERS=\"x-tidegate-key: ${TIDEGATE_KEY:?"));
        assert!(!text(true).contains("export ANTHROPIC_AUTH_TOKEN"));
    }
}
