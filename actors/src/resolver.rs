//! Names to addresses: each 30 s, filtered by what an origin may reach, published for the workers, who never
//! resolve. Where a proxy stands in front of an origin, the proxy's name is looked up and the origin's is the proxy's
//! matter. A failed or forbidden answer leaves the last good one in place for up to an hour.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::limits::{RESOLVE_INTERVAL, RESOLVE_STALE_MAX};
use tidegate_core::snapshot::{Origin, Reach};
use tidegate_core::{Moment, Snapshot};
use tokio::task::JoinSet;

use crate::board::Board;
use crate::reach;

/// Time for one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Names asked for at once.
const LOOKUPS_MAX: usize = 16;
/// Addresses kept of one answer.
const ADDRESSES_MAX: usize = 16;

/// Resolves every origin of a snapshot that has no address yet. Called before a snapshot is first served, so that
/// its first call finds addresses; what cannot be resolved now is tried again each 30 s.
pub async fn resolve_all(snapshot: &Snapshot) {
    let missing = snapshot.providers.iter().map(|it| &it.origin).filter(|it| it.addresses.load().is_empty());
    for (origin, answer) in ask(missing).await {
        match answer {
            Ok(addresses) => origin.addresses.publish(addresses),
            Err(reason) => {
                tracing::warn!(
                    host = &**origin.dialed().0,
                    reason,
                    "the name of an upstream was not resolved"
                )
            }
        }
    }
}

/// What the resolver is told.
pub(crate) enum ResolverMessage {
    /// The next round is due.
    Look,
}

/// The actor.
pub(crate) struct Resolver;

pub(crate) struct ResolverState {
    board: Arc<Board>,
    held: HashMap<(Arc<str>, u16), Held>,
}

impl Actor for Resolver {
    type Msg = ResolverMessage;
    type State = ResolverState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<ResolverMessage>,
        board: Arc<Board>,
    ) -> Result<ResolverState, ActorProcessingErr> {
        myself.send_message(ResolverMessage::Look)?;
        Ok(ResolverState { board, held: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ResolverMessage>,
        ResolverMessage::Look: ResolverMessage,
        state: &mut ResolverState,
    ) -> Result<(), ActorProcessingErr> {
        state.round().await;
        myself.send_after(RESOLVE_INTERVAL, || ResolverMessage::Look);
        Ok(())
    }
}

impl ResolverState {
    async fn round(&mut self) {
        let snapshot = self.board.snapshot.load_full();
        let place = |it: &Origin| (it.dialed().0.clone(), it.dialed().1);
        self.held.retain(|key, _| snapshot.providers.iter().any(|it| place(&it.origin) == *key));
        for (origin, answer) in ask(snapshot.providers.iter().map(|it| &it.origin)).await {
            let now = self.board.now();
            let before = origin.addresses.load_full();
            // A restarted resolver trusts what it finds published as if it were fresh.
            let held = self.held.entry(place(origin)).or_insert(Held { good_at: now });
            match held.next(answer, &before, now) {
                Step::Keep => {}
                Step::Publish(addresses) => {
                    tracing::info!(
                        host = &**origin.dialed().0,
                        ?addresses,
                        "the addresses of an upstream changed"
                    );
                    origin.addresses.publish(addresses);
                }
                Step::Stale(reason) => {
                    tracing::warn!(
                        host = &**origin.dialed().0,
                        reason,
                        "the last addresses of an upstream are kept"
                    );
                }
                Step::Forget(reason) => {
                    tracing::error!(
                        host = &**origin.dialed().0,
                        reason,
                        "the addresses of an upstream are too old"
                    );
                    origin.addresses.publish(Vec::new());
                }
            }
        }
    }
}

/// When an origin last had a good answer.
#[derive(Debug)]
struct Held {
    good_at: Moment,
}

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Publish(Vec<SocketAddr>),
    Stale(String),
    Forget(String),
}

impl Held {
    fn next(&mut self, answer: Result<Vec<SocketAddr>, String>, before: &[SocketAddr], now: Moment) -> Step {
        match answer {
            Ok(addresses) => {
                self.good_at = now;
                // Resolvers turn the order of an answer at will.
                let same = addresses.len() == before.len() && addresses.iter().all(|it| before.contains(it));
                if same { Step::Keep } else { Step::Publish(addresses) }
            }
            Err(reason) if before.is_empty() => Step::Stale(reason),
            Err(reason) if now.since(self.good_at) <= RESOLVE_STALE_MAX => Step::Stale(reason),
            Err(reason) => Step::Forget(reason),
        }
    }
}

/// Resolves origins, a bounded number at once.
async fn ask<'a>(
    origins: impl Iterator<Item = &'a Origin>,
) -> Vec<(&'a Origin, Result<Vec<SocketAddr>, String>)> {
    let origins: Vec<&Origin> = origins.collect();
    let mut answers = Vec::with_capacity(origins.len());
    for group in origins.chunks(LOOKUPS_MAX) {
        let mut lookups = JoinSet::new();
        for (at, origin) in group.iter().enumerate() {
            let (host, port, reach) = origin.dialed();
            let host = host.clone();
            lookups.spawn(async move { (at, resolve(&host, port, reach).await) });
        }
        while let Some(done) = lookups.join_next().await {
            // A lookup that panicked leaves its origin as it is.
            if let Ok((at, answer)) = done {
                answers.push((group[at], answer));
            }
        }
    }
    answers
}

async fn resolve(host: &str, port: u16, reach: Reach) -> Result<Vec<SocketAddr>, String> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return permitted(host, [SocketAddr::new(literal, port)], reach);
    }
    match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => permitted(host, addresses, reach),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
    }
}

/// The addresses of an answer that the origin may have. `localhost` is this host, whatever a resolver says.
fn permitted(
    host: &str,
    addresses: impl IntoIterator<Item = SocketAddr>,
    reach: Reach,
) -> Result<Vec<SocketAddr>, String> {
    let local_only = host == "localhost";
    let mut kept: Vec<SocketAddr> = Vec::new();
    let mut refused: Option<IpAddr> = None;
    for address in addresses {
        if !reach::allows(reach, address.ip())
            || (local_only && reach::ground(address.ip()) != reach::Ground::Loopback)
        {
            refused = Some(address.ip());
        } else if kept.len() < ADDRESSES_MAX && !kept.contains(&address) {
            kept.push(address);
        }
    }
    match (kept.is_empty(), refused) {
        (false, _) => Ok(kept),
        (true, Some(ip)) => Err(format!("{ip} is no address that this upstream may have")),
        (true, None) => Err("the name has no address".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address of a test")
    }

    #[test]
    fn answers_are_filtered_by_reach() {
        let inward = [at("10.0.0.1:443"), at("127.0.0.1:443")];
        let mixed =
            [at("169.254.169.254:443"), at("160.79.104.10:443"), at("10.0.0.1:443"), at("160.79.104.10:443")];
        assert_eq!(permitted("api.example", mixed, Reach::Public), Ok(vec![at("160.79.104.10:443")]));
        assert!(permitted("api.example", inward, Reach::Public).is_err(), "a name that turned inwards");
        assert_eq!(permitted("api.example", inward, Reach::Private), Ok(inward.to_vec()));
        assert!(permitted("api.example", [at("169.254.169.254:80")], Reach::Private).is_err());
        assert!(
            permitted("localhost", [at("160.79.104.10:443")], Reach::Literal).is_err(),
            "localhost is this host"
        );
        assert!(permitted("localhost", [], Reach::Literal).is_err());
        let many = (0..200u16).map(|it| SocketAddr::from(([160, 79, 104, it as u8], 443)));
        assert_eq!(permitted("api.example", many, Reach::Public).map(|it| it.len()), Ok(ADDRESSES_MAX));
    }

    #[test]
    fn the_last_good_answer_is_kept_for_an_hour() {
        let old = vec![at("160.79.104.10:443"), at("160.79.104.11:443")];
        let turned: Vec<SocketAddr> = old.iter().rev().copied().collect();
        let moment = |s: u64| Moment::ZERO + Duration::from_secs(s);
        let mut held = Held { good_at: moment(0) };
        assert_eq!(held.next(Ok(turned), &old, moment(30)), Step::Keep, "another order is no change");
        assert!(matches!(held.next(Err("lost".into()), &old, moment(60)), Step::Stale(_)));
        assert!(matches!(held.next(Err("lost".into()), &old, moment(3630)), Step::Stale(_)));
        assert!(matches!(held.next(Err("lost".into()), &old, moment(3631)), Step::Forget(_)));
        assert!(
            matches!(held.next(Err("lost".into()), &[], moment(9999)), Step::Stale(_)),
            "nothing left to forget"
        );
        let new = vec![at("160.79.104.12:443")];
        assert_eq!(held.next(Ok(new.clone()), &[], moment(9999)), Step::Publish(new));
        assert_eq!(held.good_at, moment(9999));
    }

    /// The first answer is public, the second leads inwards, with or without a public one beside it. What a connection
    /// is made to is what was published, so there is no moment at which the second could be used.
    #[test]
    fn a_name_that_turns_inwards_keeps_its_old_addresses() {
        let moment = |s: u64| Moment::ZERO + Duration::from_secs(s);
        let good = permitted("api.example", [at("160.79.104.10:443")], Reach::Public).expect("public");
        for inward in [
            "127.0.0.1:443",
            "10.0.0.1:443",
            "169.254.169.254:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "[::ffff:169.254.169.254]:443",
            "[fe80::1]:443",
            "[fd00:ec2::254]:443",
            "[64:ff9b::a9fe:a9fe]:443",
            "[2002:7f00:1::]:443",
            "0.0.0.0:443",
            "[::]:443",
            "100.100.100.200:443",
        ] {
            let mut held = Held { good_at: moment(0) };
            let turned = permitted("api.example", [at(inward)], Reach::Public);
            assert!(matches!(held.next(turned, &good, moment(30)), Step::Stale(_)), "{inward}");
            let beside = permitted("api.example", [at(inward), good[0]], Reach::Public);
            assert_eq!(held.next(beside, &good, moment(60)), Step::Keep, "{inward}");
        }
    }

    #[tokio::test]
    async fn literals_need_no_lookup() {
        assert_eq!(resolve("127.0.0.1", 9, Reach::Literal).await, Ok(vec![at("127.0.0.1:9")]));
        assert_eq!(resolve("::1", 9, Reach::Literal).await, Ok(vec![at("[::1]:9")]));
    }
}
