//! What one seed decides: the machine, the configuration, the callers, and which trouble there is. All of it is drawn
//! before the run begins, each part at a place of its own (see [`Chance`]).

use tidegate_ring::sim::Faults;

use crate::chance::Chance;
use crate::provider::Base;
use crate::trouble::{Trouble, Troubles};

/// Grows whenever the same seed means another run: older cases mean nothing any more.
pub const SHAPE_VERSION: u32 = 1;
/// A second of virtual time.
pub const SECOND_NS: u64 = 1_000_000_000;
/// A millisecond of virtual time.
pub const MS_NS: u64 = 1_000_000;

/// A run, before it has run.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it comes from.
    pub seed: u64,
    /// What may go wrong.
    pub troubles: Troubles,
    /// Of 1,000 attempts, how many meet trouble.
    pub rate: u16,
    /// Workers of the gateway.
    pub workers: usize,
    /// Its slots.
    pub slots: usize,
    /// Upstreams.
    pub providers: Vec<ProviderScript>,
    /// Chains of public models: positions of providers, and the name there.
    pub models: Vec<Vec<(usize, usize)>>,
    /// Who calls.
    pub tenants: Vec<TenantScript>,
    /// What they call.
    pub calls: Vec<CallScript>,
    /// Connections that callers hold: a call belongs to one.
    pub lanes: usize,
    /// What the control plane and the host do, and when.
    pub events: Vec<(u64, Event)>,
    /// What the network does.
    pub network: Faults,
    /// Times at which every provider answers in one way, whatever is drawn.
    pub spells: Vec<Spell>,
}

/// A time at which every provider answers in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    /// Since the start.
    pub from_ns: u64,
    /// Until then.
    pub until_ns: u64,
    /// The answer.
    pub base: Base,
}

/// An upstream.
#[derive(Clone, Debug)]
pub struct ProviderScript {
    /// Position in [`tidegate_providers::ALL`].
    pub dialect: usize,
    /// Keys of each account.
    pub accounts: Vec<AccountScript>,
}

/// An account.
#[derive(Clone, Debug)]
pub struct AccountScript {
    /// How many keys it has.
    pub keys: usize,
    /// Requests a minute that it truly has, in each class; zero is no limit.
    pub requests_per_minute: u64,
    /// The configuration states them.
    pub stated: bool,
}

/// A virtual key.
#[derive(Clone, Debug)]
pub struct TenantScript {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct CallScript {
    /// Whose it is.
    pub tenant: usize,
    /// The connection that it goes over.
    pub lane: usize,
    /// Not before this, in virtual time since the start.
    pub at_ns: u64,
    /// Position in [`tidegate_providers::ALL`].
    pub dialect: usize,
    /// A stream is asked for.
    pub streamed: bool,
    /// The model asked for.
    pub ask: Ask,
    /// Bytes of text beside what must be there.
    pub text_bytes: usize,
    /// The caller's own bound of the output.
    pub max_tokens: u64,
    /// It counts tokens only.
    pub counts_tokens: bool,
    /// How the caller behaves.
    pub manner: Manner,
}

/// Which model a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A public one.
    Public(usize),
    /// A name of the dialect, at all providers that speak it.
    Bare(usize),
}

/// How a caller behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Plain,
    /// It leaves so long after it has sent its request.
    LeavesAfter(u64),
    /// It leaves once it has so many bytes of the reply.
    LeavesAt(usize),
    /// It waits so long before each read.
    Slow(u64),
    /// It presents a key that nobody has.
    Stranger,
    /// Its head cannot be read.
    Malformed,
    /// The gateway panics at it.
    Panics,
}

/// What happens beside the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new revision of the configuration.
    Reload,
    /// The limits of a virtual key change to so many requests a minute; zero takes them away.
    Retune(usize, u64),
    /// A virtual key leaves the configuration.
    Revoke(usize),
    /// The wall clock jumps, in milliseconds.
    WallJump(i64),
    /// The shutdown begins; its grace for whole replies, and for streams, in nanoseconds.
    Shutdown(u64, u64),
}

impl Script {
    /// What `seed` decides.
    pub fn of(seed: u64) -> Script {
        let mut chance = Chance::at(seed, &[0]);
        // Half of all kinds on the mean, from a calm day to a very bad one.
        let share = chance.one_of(&[0, 100, 250, 500, 500, 800]);
        let troubles = Trouble::ALL.iter().filter(|it| chance.per_mille(share_of(**it, share)));
        let troubles = Troubles::of(&troubles.copied().collect::<Vec<_>>());
        let rate = chance.one_of(&[20, 100, 300, 600, 950]);
        let providers: Vec<ProviderScript> =
            (0..chance.between(1, 4)).map(|at| provider(seed, at, troubles)).collect();
        let models = (0..chance.between(1, 3)).map(|at| chain(seed, at, providers.len())).collect();
        let tenants = (0..chance.between(1, 4)).map(|at| tenant(seed, at)).collect::<Vec<_>>();
        let lanes = chance.one_of(&[1, 3, 6, 12, 24]);
        let mut script = Script {
            seed,
            troubles,
            rate,
            workers: chance.between(1, 3) as usize,
            slots: chance.one_of(&[8, 64]),
            providers,
            models,
            tenants,
            calls: Vec::new(),
            lanes,
            events: Vec::new(),
            network: network(seed, troubles),
            spells: Vec::new(),
        };
        let span_ns = chance.one_of(&[SECOND_NS / 2, 5 * SECOND_NS, 60 * SECOND_NS]);
        let calls = chance.one_of(&[3, 12, 30, 60]);
        script.calls = (0..calls).map(|at| call(&script, at, span_ns)).collect();
        script.events = events(&script, span_ns);
        script
    }

    /// The same without some of its trouble.
    #[must_use]
    pub fn without(mut self, off: Troubles) -> Script {
        self.troubles = self.troubles.without(off);
        self.network = network(self.seed, self.troubles);
        let troubles = self.troubles;
        self.events.retain(|(_, event)| event.kind().is_none_or(|it| troubles.has(it)));
        for (at, call) in self.calls.iter_mut().enumerate() {
            if call.manner.kind().is_some_and(|it| !troubles.has(it)) {
                call.manner = Manner::Plain;
            }
            if !troubles.has(Trouble::BigBody) {
                call.text_bytes = call.text_bytes.min(small_text(self.seed, at as u64));
            }
        }
        for provider in &mut self.providers {
            for account in &mut provider.accounts {
                if !troubles.has(Trouble::Quota) {
                    account.requests_per_minute = 0;
                }
            }
        }
        self
    }

    /// The same with its first `calls` calls only.
    #[must_use]
    pub fn shortened(mut self, calls: usize) -> Script {
        self.calls.truncate(calls);
        self
    }

    /// Calm, with one worker, no provider, nobody who calls: for those who write a script of their own.
    pub fn empty(seed: u64) -> Script {
        Script {
            seed,
            troubles: Troubles::NONE,
            rate: 0,
            workers: 1,
            slots: 256,
            providers: Vec::new(),
            models: Vec::new(),
            tenants: Vec::new(),
            calls: Vec::new(),
            lanes: 0,
            events: Vec::new(),
            network: Faults::NONE,
            spells: Vec::new(),
        }
    }

    /// Tries that a call may need at most.
    pub fn attempts_max(&self) -> usize {
        let of = |at: &(usize, usize)| self.providers[at.0].accounts.iter().map(|it| it.keys).sum::<usize>();
        let chains = self.models.iter().map(|chain| chain.iter().map(of).sum());
        let all = (0..self.providers.len()).map(|at| of(&(at, 0))).sum();
        chains.chain([all]).max().unwrap_or(0)
    }
}

/// Panics and shutdowns end more than they show: most runs are without them.
fn share_of(kind: Trouble, share: u16) -> u16 {
    match kind {
        Trouble::Shutdown | Trouble::NoControl => share / 4,
        Trouble::Panic | Trouble::Standstill | Trouble::Reset | Trouble::Large => share / 2,
        _ => share,
    }
}

fn provider(seed: u64, at: u64, troubles: Troubles) -> ProviderScript {
    let mut chance = Chance::at(seed, &[1, at]);
    let accounts = (0..chance.between(1, 4))
        .map(|_| {
            let limit = chance.one_of(&[0, 3, 10, 60]);
            AccountScript {
                keys: chance.one_of(&[1, 1, 1, 2]),
                requests_per_minute: if troubles.has(Trouble::Quota) { limit } else { 0 },
                stated: chance.per_mille(400),
            }
        })
        .collect();
    ProviderScript { dialect: chance.one_of(&[0, 0, 1]), accounts }
}

fn chain(seed: u64, at: u64, providers: usize) -> Vec<(usize, usize)> {
    let mut chance = Chance::at(seed, &[2, at]);
    (0..chance.between(1, 4))
        .map(|_| (chance.below(providers as u64) as usize, chance.below(2) as usize))
        .collect()
}

fn tenant(seed: u64, at: u64) -> TenantScript {
    let mut chance = Chance::at(seed, &[3, at]);
    let requests = chance.one_of(&[0, 0, 6, 60, 600]);
    let tokens = chance.one_of(&[0, 0, 2_000, 50_000]);
    TenantScript {
        requests_per_minute: (requests > 0).then_some(requests),
        tokens_per_minute: (tokens > 0).then_some(tokens),
    }
}

fn small_text(seed: u64, at: u64) -> usize {
    Chance::at(seed, &[4, at, 1]).one_of(&[0, 100, 600, 3_000])
}

fn call(script: &Script, at: u64, span_ns: u64) -> CallScript {
    let mut chance = Chance::at(script.seed, &[4, at]);
    let big = script.troubles.has(Trouble::BigBody) && chance.per_mille(200);
    let mut text_bytes = small_text(script.seed, at);
    if big {
        text_bytes = chance.one_of(&[20_000, 100_000, 400_000]);
    }
    let ask = if chance.per_mille(700) {
        Ask::Public(chance.below(script.models.len() as u64) as usize)
    } else {
        Ask::Bare(chance.below(2) as usize)
    };
    let any = script.providers[chance.below(script.providers.len() as u64) as usize].dialect;
    let of_model = match ask {
        Ask::Public(model) => script.models[model].first().map(|it| script.providers[it.0].dialect),
        Ask::Bare(_) => None,
    };
    // Now and then a model that its dialect does not have.
    let dialect = if chance.per_mille(950) { of_model.unwrap_or(any) } else { any };
    CallScript {
        tenant: chance.below(script.tenants.len() as u64) as usize,
        lane: chance.below(script.lanes as u64) as usize,
        at_ns: chance.below(span_ns),
        dialect,
        streamed: chance.per_mille(600),
        ask,
        text_bytes,
        max_tokens: chance.one_of(&[1, 50, 1_000]),
        counts_tokens: chance.per_mille(50),
        manner: manner(&mut chance, script.troubles),
    }
}

fn manner(chance: &mut Chance, troubles: Troubles) -> Manner {
    let all = [
        Manner::LeavesAfter(chance.below(3 * SECOND_NS)),
        Manner::LeavesAt(chance.below(4_000) as usize),
        Manner::Slow(chance.below(2 * SECOND_NS)),
        Manner::Stranger,
        Manner::Malformed,
        Manner::Panics,
    ];
    let picked = chance.one_of(&all);
    let strikes = chance.per_mille(250);
    if strikes && picked.kind().is_some_and(|it| troubles.has(it)) { picked } else { Manner::Plain }
}

fn events(script: &Script, span_ns: u64) -> Vec<(u64, Event)> {
    let mut chance = Chance::at(script.seed, &[5]);
    let mut events = Vec::new();
    for kind in script.troubles.iter() {
        let times = chance.between(1, 3);
        for _ in 0..times {
            let at_ns = chance.below(span_ns + 5 * SECOND_NS);
            let tenant = chance.below(script.tenants.len() as u64) as usize;
            let event = match kind {
                Trouble::Reload => Event::Reload,
                Trouble::Retune => Event::Retune(tenant, chance.one_of(&[0, 6, 60, 6_000])),
                Trouble::Revoke => Event::Revoke(tenant),
                Trouble::WallJump => {
                    Event::WallJump(chance.one_of(&[-86_400_000, -3_000, 3_000, 86_400_000, 2_678_400_000]))
                }
                Trouble::Shutdown => {
                    Event::Shutdown(chance.below(10 * SECOND_NS), chance.below(30 * SECOND_NS))
                }
                _ => continue,
            };
            events.push((at_ns, event));
        }
    }
    events.sort_by_key(|it| it.0);
    events
}

fn network(seed: u64, troubles: Troubles) -> Faults {
    let mut chance = Chance::at(seed, &[6]);
    let mut per_mille = |kind, choices: &[u16]| {
        let drawn = chance.one_of(choices);
        if troubles.has(kind) { drawn } else { 0 }
    };
    Faults {
        connect_refused: per_mille(Trouble::Unreachable, &[20, 300]),
        connect_stall: per_mille(Trouble::Unreachable, &[5, 100]),
        reset: per_mille(Trouble::Reset, &[30, 200]),
        stall: per_mille(Trouble::Standstill, &[30, 200]),
        stall_max_ns: 200 * SECOND_NS,
        accept_error: per_mille(Trouble::Descriptors, &[30, 200]),
        pause: per_mille(Trouble::Pause, &[1, 10]),
        pause_max_ns: 50 * MS_NS,
    }
}

impl Event {
    fn kind(self) -> Option<Trouble> {
        Some(match self {
            Event::Reload => Trouble::Reload,
            Event::Retune(..) => Trouble::Retune,
            Event::Revoke(_) => Trouble::Revoke,
            Event::WallJump(_) => Trouble::WallJump,
            Event::Shutdown(..) => Trouble::Shutdown,
        })
    }
}

impl Manner {
    fn kind(self) -> Option<Trouble> {
        match self {
            Manner::Plain => None,
            Manner::LeavesAfter(_) | Manner::LeavesAt(_) => Some(Trouble::Leave),
            Manner::Slow(_) => Some(Trouble::SlowReader),
            Manner::Stranger => Some(Trouble::BadKey),
            Manner::Malformed => Some(Trouble::Malformed),
            Manner::Panics => Some(Trouble::Panic),
        }
    }
}
