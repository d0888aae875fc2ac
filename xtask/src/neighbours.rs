//! Programs that the black-box tests hold the gateway against, as the distribution has them: nginx and HAProxy, which
//! read the same bytes, and slowhttptest, which sends them slowly. Installed where that can be done; where it cannot,
//! the tests say what they leave out.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::progress::{Board, say};

/// Program and package.
const NEIGHBOURS: [(&str, &str); 3] =
    [("nginx", "nginx-light"), ("haproxy", "haproxy"), ("slowhttptest", "slowhttptest")];
/// Where Debian keeps programs; those of servers are not in every user's path.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Installs what is missing as one step; at once if nothing is. What cannot be installed is no failure.
pub(crate) fn step(board: &mut Board) {
    board.step("neighbours", |_| {
        let missing: Vec<&str> = NEIGHBOURS.iter().filter(|it| !is_there(it.0)).map(|it| it.1).collect();
        if missing.is_empty() {
            say(&format!("installed already: {}", NEIGHBOURS.map(|it| it.0).join(", ")));
        } else if let Err(why) = install(&missing) {
            say(&format!("NOT INSTALLED: {}: {why}. What needs them is skipped.", missing.join(", ")));
        }
        Ok(())
    });
}

fn is_there(program: &str) -> bool {
    FOLDERS.iter().any(|it| Path::new(it).join(program).is_file())
}

/// With the distribution's own tool, once more behind a fresh list of packages.
fn install(packages: &[&str]) -> Result<(), String> {
    let id = process::output(Command::new("id").arg("-u"))?;
    if id.trim() != "0" {
        return Err("only root may install packages".into());
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        process::run_shown(command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments))
    };
    let install = [&["install", "--yes", "--no-install-recommends"][..], packages].concat();
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}
