//! Where the admin port of a configuration file is, whatever else is wrong with the file: for who asks a running
//! gateway, which may well run with an older version of it. Resolves no secret.

use std::net::SocketAddr;
use std::path::Path;

use super::check::{self, Check};
use super::complaint::{Complaints, Notes, Spot};
use super::field::Field;
use super::secrets::{Host, Surroundings};
use super::{folder_of, read, read_raw};

/// The admin address that a configuration file names, else the default one.
///
/// # Errors
/// The file cannot be read, is no YAML, or its `admin.listen` is no address.
pub fn admin_address(path: &Path) -> Result<SocketAddr, Complaints> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| Complaints::of(format!("cannot read {name}: {error}")))?;
    address_in(&name, &text, &Host::new(folder_of(path)))
}

fn address_in(name: &str, text: &str, surroundings: &dyn Surroundings) -> Result<SocketAddr, Complaints> {
    // What is wrong elsewhere in the file is noted apart and forgotten.
    let elsewhere = Notes::new(name);
    let (raw, masked) = match read_raw(&elsewhere, text) {
        Ok(read) => read,
        Err(masked) => return Err(Complaints::new(elsewhere.into_list(), masked)),
    };
    let notes = Notes::new(name);
    let check = Check { notes: &notes, surroundings };
    let found = match &raw.admin {
        Field::Absent => Some(check::ADMIN_LISTEN),
        Field::Given(admin, spot) => match &admin.listen {
            Field::Broken(_) => broken(&notes, *spot),
            listen => check.address(listen, check::ADMIN_LISTEN).map(|(address, _)| address),
        },
        Field::Broken(spot) => broken(&notes, *spot),
    };
    found.ok_or_else(|| Complaints::new(notes.into_list(), masked))
}

fn broken(notes: &Notes, spot: Spot) -> Option<SocketAddr> {
    let hint = "for example `admin: { listen: 127.0.0.1:4001 }`".to_owned();
    notes.error(spot, "this names no admin address", hint);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::tests::Given;

    fn address(text: &str) -> Result<String, String> {
        let found = address_in("a.yaml", text, &Given::default());
        found.map(|it| it.to_string()).map_err(|it| it.list()[0].to_string())
    }

    #[test]
    fn the_address_is_found_in_a_file_with_other_mistakes() {
        for (text, expect) in [
            ("", "127.0.0.1:4001"),
            ("admin: {}", "127.0.0.1:4001"),
            ("admin: { listen: 0.0.0.0:9000 }", "0.0.0.0:9000"),
            ("admin: { listen: \"localhost:9000\", token: \"${env:NOT_SET}\" }", "127.0.0.1:9000"),
            ("admin: { listen: \"[::1]:9000\" }\nproviders: 7\nbogus: x\nworkers: many", "[::1]:9000"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(expect), "{text}");
        }
    }

    #[test]
    fn a_mistake_in_the_address_itself_is_told_with_its_place() {
        for (text, expect) in [
            ("admin: { listen: nowhere }", "a.yaml:1:18: error: `nowhere` is not an address with a port"),
            ("workers: 2\nadmin: 4001", "a.yaml:2:8: error: this names no admin address"),
            ("admin: { listen: [1] }", "a.yaml:1:8: error: this names no admin address"),
            ("admin: {", "not acceptable YAML"),
        ] {
            let complaint = address(text).expect_err(text);
            assert!(complaint.contains(expect), "{text}: {complaint}");
        }
    }
}
