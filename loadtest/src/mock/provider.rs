//! The provider's state on its one thread: keys, quotas, script and books. Decides who a call comes from and
//! whether its
//! quota has room. It never touches a socket.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};

use tidegate_ring::now_ns;
use tidegate_wire::head::RequestHead;

use super::config::{KeyState, Limits, MockConfig, ModelConfig, OrganizationConfig};
use super::journal::{Books, CallRecord, Ending, Journal, KeptRequest, OpenCall};
use super::kept::Kept;
use super::quota::{Levels, Need, NoRoom, Pool};
use super::script::{Fault, Rule, Script, Subject};

/// One mock provider.
pub(crate) struct Provider {
    pub(crate) config: MockConfig,
    start_ns: u64,
    /// Key to organization, by its place.
    keys: HashMap<String, usize>,
    state: RefCell<State>,
    kept: RefCell<Kept>,
}

/// Which buckets: an organization, by its place, and a class of models.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolName {
    organization: usize,
    class: String,
}

struct State {
    pools: HashMap<PoolName, Pool>,
    key_states: HashMap<String, KeyState>,
    script: Script,
    books: Books,
    numbers: u64,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// As it came; empty if none came.
    pub(crate) key: String,
    /// The place of its organization and what the key is good for; none if it is nobody's.
    pub(crate) holder: Option<(usize, KeyState)>,
}

impl Provider {
    /// A provider that starts now, with a configuration that was checked.
    pub(crate) fn new(config: MockConfig) -> Provider {
        let mut keys = HashMap::new();
        let mut key_states = HashMap::new();
        for (at, organization) in config.organizations.iter().enumerate() {
            for key in &organization.keys {
                keys.insert(key.key().to_owned(), at);
                key_states.insert(key.key().to_owned(), key.state());
            }
        }
        let mut script = Script::default();
        script.add(config.script.clone(), 0.0);
        let books = Books::new(config.calls_kept, config.requests_kept, config.request_bytes_kept);
        let state = State { pools: HashMap::new(), key_states, script, books, numbers: 0 };
        let kept = RefCell::new(Kept::new(config.objects_kept, config.object_bytes_kept));
        let provider = Provider { config, start_ns: now_ns(), keys, state: RefCell::new(state), kept };
        provider.fill_pools();
        provider
    }

    /// Ms since the start.
    pub(crate) fn now_ms(&self) -> f64 {
        now_ns().saturating_sub(self.start_ns) as f64 / 1e6
    }

    fn now_s(&self) -> f64 {
        self.now_ms() / 1e3
    }

    /// A number that no other call gets.
    pub(crate) fn next_number(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.numbers += 1;
        state.numbers
    }

    /// The caller, by either form of credential.
    pub(crate) fn caller(&self, head: &RequestHead) -> Caller {
        let bearer = head.field("authorization").and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let key = head.field("x-api-key").or(bearer).unwrap_or_default();
        let key = String::from_utf8_lossy(key).into_owned();
        let organization = self.keys.get(&key).copied();
        let state = self.state.borrow().key_states.get(&key).copied();
        Caller { holder: organization.zip(state), key }
    }

    pub(crate) fn organization(&self, at: usize) -> Option<&OrganizationConfig> {
        self.config.organizations.get(at)
    }

    pub(crate) fn model(&self, id: &str) -> Option<&ModelConfig> {
        self.config.models.iter().find(|model| model.id == id)
    }

    /// Lets a call in or says what is lacking, and how full the buckets are then.
    pub(crate) fn admit(&self, pool: &PoolName, need: Need) -> (Result<(), NoRoom>, Levels) {
        let now_s = self.now_s();
        match self.state.borrow_mut().pools.get_mut(pool) {
            Some(pool) => (pool.admit(need, now_s), pool.levels(now_s)),
            None => (Ok(()), Levels::default()),
        }
    }

    /// All levels, by organization and class.
    pub(crate) fn all_levels(&self) -> BTreeMap<String, BTreeMap<String, Levels>> {
        let now_s = self.now_s();
        let mut all: BTreeMap<String, BTreeMap<String, Levels>> = BTreeMap::new();
        for (name, pool) in &mut self.state.borrow_mut().pools {
            let Some(organization) = self.config.organizations.get(name.organization) else { continue };
            let classes = all.entry(organization.id.clone()).or_default();
            classes.insert(name.class.clone(), pool.levels(now_s));
        }
        all
    }

    /// The fault that a call meets.
    pub(crate) fn meet(&self, subject: &Subject<'_>) -> Option<Fault> {
        let now_ms = self.now_ms();
        self.state.borrow_mut().script.meet(subject, now_ms)
    }

    /// The pace at which a request is read.
    pub(crate) fn read_pace(&self, subject: &Subject<'_>) -> Option<u64> {
        let now_ms = self.now_ms();
        self.state.borrow_mut().script.read_pace(subject, now_ms)
    }

    /// Enters a call that was let in.
    pub(crate) fn enter(&self, record: CallRecord) -> OpenCall {
        self.state.borrow_mut().books.enter(record)
    }

    /// Enters a call that is over as it is entered.
    pub(crate) fn enter_ended(&self, record: CallRecord, generates: bool) {
        self.state.borrow_mut().books.enter_ended(record, generates);
    }

    /// Output that left for the caller: it counts from now on. It takes from the joint bucket only what was not
    /// taken before.
    pub(crate) fn produce(&self, call: &OpenCall, pool: &PoolName, tokens: u64) {
        if tokens == 0 {
            return;
        }
        let now_s = self.now_s();
        let mut state = self.state.borrow_mut();
        state.books.produce(call, tokens);
        if let Some(pool) = state.pools.get_mut(pool) {
            pool.produce(tokens as f64, now_s);
        }
    }

    /// Enters the end of a call. `unsettled` is what it used of the joint bucket beyond what it had taken.
    pub(crate) fn end(&self, call: &OpenCall, pool: &PoolName, status: u16, ending: Ending, unsettled: f64) {
        let (now_ms, now_s) = (self.now_ms(), self.now_s());
        let mut state = self.state.borrow_mut();
        state.books.end(call, status, ending, now_ms);
        if let Some(pool) = state.pools.get_mut(pool) {
            pool.correct(unsettled, now_s);
        }
    }

    /// What outlives a call. To be let go of before anything else of the provider is asked.
    pub(crate) fn kept_mut(&self) -> RefMut<'_, Kept> {
        self.kept.borrow_mut()
    }

    /// Keeps a request.
    pub(crate) fn keep(&self, head: &[u8], body: &[u8]) {
        let now_ms = self.now_ms();
        self.state.borrow_mut().books.keep(now_ms, head, body);
    }

    /// The books.
    pub(crate) fn journal(&self) -> Journal {
        self.state.borrow().books.show(self.now_ms())
    }

    /// The requests that were kept.
    pub(crate) fn kept(&self) -> Vec<KeptRequest> {
        self.state.borrow().books.kept()
    }

    /// Changes the sums that are no calls.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Books)) {
        change(&mut self.state.borrow_mut().books);
    }

    /// Adds rules; false if there are too many.
    pub(crate) fn add_rules(&self, rules: Vec<Rule>, replace: bool) -> bool {
        let now_ms = self.now_ms();
        let mut state = self.state.borrow_mut();
        if replace {
            state.script.clear();
        }
        state.script.add(rules, now_ms)
    }

    /// Changes what a key is good for; false if nobody has it.
    pub(crate) fn set_key_state(&self, key: &str, to: KeyState) -> bool {
        self.state.borrow_mut().key_states.get_mut(key).map(|state| *state = to).is_some()
    }

    /// Forgets books, script and whatever was kept, and fills the buckets as at the start. The clock goes on.
    pub(crate) fn reset(&self) {
        self.kept_mut().clear();
        {
            let mut state = self.state.borrow_mut();
            state.books.clear();
            state.script.clear();
            state.pools.clear();
            for key in self.config.organizations.iter().flat_map(|organization| &organization.keys) {
                state.key_states.insert(key.key().to_owned(), key.state());
            }
        }
        self.fill_pools();
    }

    /// The buckets of an organization and class.
    pub(crate) fn pool_name(&self, organization: usize, class: &str) -> PoolName {
        PoolName { organization, class: class.to_owned() }
    }

    /// Builds all buckets at once, so that they fill from the start and not from the first call on.
    fn fill_pools(&self) {
        let now_s = self.now_s();
        let mut state = self.state.borrow_mut();
        for (at, organization) in self.config.organizations.iter().enumerate() {
            let mut of_class = |class: &str, limits: &Limits| {
                let pool = Pool::new(limits, self.config.time_scale, organization.stranger_share, now_s);
                state.pools.insert(self.pool_name(at, class), pool);
            };
            for model in &self.config.models {
                if let Some(limits) = organization.limits.get(model.class()).or(organization.limits.get("*"))
                {
                    of_class(model.class(), limits);
                }
            }
            for class in ["count_tokens", "files", "batches"] {
                if let Some(limits) = organization.limits.get(class) {
                    of_class(class, limits);
                }
            }
        }
    }
}
