//! Which worker a fresh connection belongs to. The kernel deals connections out without a look at who is busy; this
//! decides when one moves on. It counts connections, not calls: what a connection will carry nobody knows yet.

/// A worker this many connections over one and a half times the mean is far above it.
const FAR_ABOVE: usize = 8;

/// What is known of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections it has, or is about to get.
    pub connections: usize,
    /// Connections it can have.
    pub slots: usize,
    /// Its loop runs.
    pub alive: bool,
}

impl Load {
    fn has_room(self) -> bool {
        self.alive && self.connections < self.slots
    }
}

/// The worker that should take a connection which `own` has accepted; `None` where `own` should keep it, or nobody
/// has room. `own` gives it away when it is full or far above the mean, to the one with the fewest, so that it cannot
/// come back at once.
pub fn better_place(own: usize, loads: &[Load]) -> Option<usize> {
    let here = loads.get(own)?;
    let total: usize = loads.iter().map(|it| it.connections).sum();
    let is_far_above = 2 * here.connections * loads.len() > 3 * total + 2 * FAR_ABOVE * loads.len();
    if here.has_room() && !is_far_above {
        return None;
    }
    let others = loads.iter().enumerate().filter(|(at, it)| *at != own && it.has_room());
    let (at, fewest) = others.min_by_key(|(_, it)| it.connections)?;
    (!here.has_room() || fewest.connections < here.connections).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(connections: &[usize]) -> Vec<Load> {
        connections.iter().map(|it| Load { connections: *it, slots: 100, alive: true }).collect()
    }

    #[test]
    fn an_even_share_stays_where_the_kernel_put_it() {
        for (own, connections, expect) in [
            (0, &[0, 0][..], None),
            (0, &[10, 0], None),
            (0, &[16, 0], None),
            (0, &[40, 0], Some(1)),
            (0, &[60, 50, 10, 40], None),
            (0, &[90, 50, 10, 20], Some(2)),
            (0, &[100, 99, 99, 99], Some(1)),
            (1, &[90, 50, 10, 20], None),
            (0, &[7], None),
        ] {
            assert_eq!(better_place(own, &loads(connections)), expect, "{own} {connections:?}");
        }
    }

    #[test]
    fn a_full_worker_gives_to_one_that_lives_and_has_room() {
        let mut all = loads(&[100, 100, 99]);
        assert_eq!(better_place(0, &all), Some(2));
        all[2].alive = false;
        assert_eq!(better_place(0, &all), None, "all are full, or gone");
        assert_eq!(better_place(2, &all), None);
        assert_eq!(better_place(9, &all), None);
    }

    #[test]
    fn what_was_moved_does_not_come_back() {
        for busy in 0..100 {
            for idle in 0..busy {
                let mut all = loads(&[busy, idle, busy / 2]);
                if let Some(to) = better_place(0, &all) {
                    all[to].connections += 1;
                    assert_eq!(better_place(to, &all), None, "{busy} {idle}");
                }
            }
        }
    }
}
