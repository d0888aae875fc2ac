//! Idle connections of one worker, by origin. Decides which may carry another request: fresh enough, and quiet
//! (no FIN, no error, no stray byte: a byte that nobody asked for would be taken for the next reply).

use std::sync::Arc;

use tidegate_core::snapshot::{AddressCell, Origin};
use tidegate_core::{Moment, limits};

use super::Upstream;

/// Idle connections of a worker. An origin is known by its address cell, which outlives reloads that leave the
/// origin where it is.
#[derive(Default)]
pub(crate) struct Pools {
    origins: Vec<Pool>,
}

struct Pool {
    origin: Arc<AddressCell>,
    idle: Vec<Idle>,
}

struct Idle {
    upstream: Upstream,
    since: Moment,
}

impl Pools {
    /// The idle connection that was used last, if one is still good.
    pub(crate) fn take(&mut self, origin: &Origin, now: Moment) -> Option<Upstream> {
        let pool = self.origins.iter_mut().find(|it| Arc::ptr_eq(&it.origin, &origin.addresses))?;
        while let Some(idle) = pool.idle.pop() {
            let fresh = now.since(idle.since) < limits::POOL_IDLE_TIMEOUT;
            if fresh && idle.upstream.source.is_empty() && idle.upstream.conn.is_quiet() {
                return Some(Upstream { reused: true, ..idle.upstream });
            }
        }
        None
    }

    /// Keeps a connection whose reply ended exactly. The oldest gives way where there are too many.
    pub(crate) fn put(&mut self, origin: &Origin, upstream: Upstream, now: Moment) {
        let at =
            self.origins.iter().position(|it| Arc::ptr_eq(&it.origin, &origin.addresses)).unwrap_or_else(
                || {
                    self.origins.push(Pool { origin: origin.addresses.clone(), idle: Vec::new() });
                    self.origins.len() - 1
                },
            );
        let idle = &mut self.origins[at].idle;
        if idle.len() >= limits::POOL_IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { upstream, since: now });
    }

    /// Closes what has been idle for too long or was closed by the other side, and forgets origins without any.
    pub(crate) fn sweep(&mut self, now: Moment) {
        for pool in &mut self.origins {
            pool.idle
                .retain(|it| now.since(it.since) < limits::POOL_IDLE_TIMEOUT && it.upstream.conn.is_quiet());
        }
        self.origins.retain(|it| !it.idle.is_empty());
    }
}
