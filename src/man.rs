//! `tidegate man`: prints the manual page. Commands and options come from the same description as the help; what the
//! help does not tell (signals, files, variables, exit codes) is written here.

use std::process::ExitCode;

use clap::{Arg, Command};
use roff::{Roff, bold, italic, roman};

/// Sections behind the commands: heading, then a term and what it means.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "reads the configuration again, all or nothing: with a mistake in it the old one stays.",
            ),
            (
                "SIGTERM, SIGINT",
                "drain: no new calls; running ones have 30 seconds, streams 10 minutes. A second one ends at once.",
            ),
            ("SIGUSR1", "opens the file of the access log anew, after it was moved away."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "TIDEGATE_LOG",
                "level of the log on standard error, above the configuration's: error, warn, info, debug, trace.",
            ),
            ("NAME", "whatever the file refers to as ${env:NAME}."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/tidegate/tidegate.yaml", "the configuration that the packaged unit reads."),
            ("/etc/tidegate/environment", "variables for the packaged unit, a NAME=value a line."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "it did what was asked; of serve: it was told to end, and did."),
            ("1", "it could not; the reason stands on standard error."),
            ("2", "the command line is wrong."),
        ],
    ),
];

/// Exit code 0.
pub(crate) fn run(mut command: Command) -> ExitCode {
    // Adds what every command has: help and version.
    command.build();
    crate::say(page(&command).trim_end());
    ExitCode::SUCCESS
}

fn page(command: &Command) -> String {
    let name = command.get_name();
    let version = command.get_version().unwrap_or_default();
    let mut page = Roff::new();
    page.control("TH", [name.to_uppercase().as_str(), "1", "", &format!("{name} {version}")]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {}", about(command.get_about()).trim_end_matches('.')))]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold(name), roman(" "), italic("COMMAND"), roman(" ["), italic("OPTIONS"), roman("]")]);
    page.control("SH", ["COMMANDS"]);
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        describe(&mut page, name, subcommand);
    }
    page.control("SH", ["OPTIONS"]);
    command.get_arguments().for_each(|it| option(&mut page, it));
    for (heading, entries) in SECTIONS {
        page.control("SH", [heading]);
        for (term, meaning) in entries {
            page.control("TP", []);
            page.text([bold(*term)]);
            page.text([roman(*meaning)]);
        }
    }
    page.to_roff()
}

fn describe(page: &mut Roff, program: &str, command: &Command) {
    page.control("SS", [format!("{program} {}", command.get_name()).as_str()]);
    page.text([roman(about(command.get_about()))]);
    command.get_arguments().filter(|it| it.get_id() != "help").for_each(|it| option(page, it));
}

/// An option or argument with its values and what it does.
fn option(page: &mut Roff, option: &Arg) {
    let names =
        [option.get_short().map(|it| format!("-{it}")), option.get_long().map(|it| format!("--{it}"))];
    let names: Vec<String> = names.into_iter().flatten().collect();
    let mut term = vec![bold(names.join(", "))];
    for value in option.get_value_names().unwrap_or_default().iter().filter(|_| takes_value(option)) {
        term.push(roman(if names.is_empty() { "" } else { " " }));
        term.push(italic(value.as_str()));
    }
    let mut meaning = about(option.get_help());
    let choices: Vec<String> =
        option.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
    if !choices.is_empty() && takes_value(option) {
        meaning.push_str(&format!(" One of {}.", choices.join(", ")));
    }
    if let [default] = option.get_default_values() {
        meaning.push_str(&format!(" {} unless given.", default.to_string_lossy()));
    }
    page.control("TP", []);
    page.text(term);
    page.text([roman(meaning)]);
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

/// A help text as a sentence.
fn about(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    if text.is_empty() || text.ends_with('.') { text } else { text + "." }
}
