//! A worker as the main future of a simulated one: the code that serves is the same, only what starts it differs.
//! Decides nothing; without the feature `sim` it is not there.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tidegate_ring::Listener;

use crate::worker::{self, Kept, WorkerSetup};

/// Serves on `listen` of the simulated network until the worker has drained. It is not built anew where its loop
/// panics: the simulation passes that on.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn serve(setup: WorkerSetup, listen: SocketAddr) -> io::Result<()> {
    let WorkerSetup { plane, index, reports, entries, inbox, core: _ } = setup;
    let listener = Listener::bind(listen)?;
    let kept = Rc::new(Kept::new(reports, entries, inbox));
    worker::serve_on(plane, index, kept, vec![listener]).await;
    Ok(())
}
