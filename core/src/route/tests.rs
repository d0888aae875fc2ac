//! Names to plans.

use super::*;
use crate::attempt::world::{DIALECT, OTHER_DIALECT, chain, provider};
use crate::caller::digest;
use crate::family::Families;
use crate::moment::Moment;
use crate::snapshot::{CallerDraft, CallerLimits, Draft};

fn draft() -> Draft {
    let mut foreign = provider("foreign", &[("f", &["kf"])]);
    foreign.dialect = OTHER_DIALECT;
    let caller = |name: &str, models: Option<&[&str]>| CallerDraft {
        name: name.into(),
        digest: digest(name.as_bytes()),
        limits: CallerLimits::default(),
        models: models.map(|it| it.iter().map(ToString::to_string).collect()),
        operations: Families::GENERATION,
    };
    Draft {
        providers: vec![provider("one", &[("a", &["ka"])]), foreign, provider("two", &[("b", &["kb"])])],
        models: vec![
            chain("fast", &[("one", "big-1"), ("foreign", "f-1"), ("two", "small-1"), ("one", "small-2")]),
            chain("abroad", &[("foreign", "f-1")]),
            chain("one/aliased", &[("two", "real")]),
        ],
        callers: vec![
            caller("all", None),
            caller("fast-only", Some(&["fast*"])),
            caller("nothing", Some(&[])),
        ],
        ..Draft::default()
    }
}

fn build(draft: Draft) -> Snapshot {
    Snapshot::build(draft, None, Moment::ZERO)
}

/// The plan as `provider:model`, or the fault.
fn planned(snapshot: &Snapshot, ask: Ask<'_>) -> Result<Vec<String>, Fault> {
    let plan = plan(snapshot, &ask)?;
    let text = |it: &PlannedTarget| {
        let provider = &snapshot.provider(it.provider);
        assert_eq!(provider.class_of(it.name.resolve(snapshot, ask.model)), it.class);
        assert_eq!(provider.route_of(it.name.resolve(snapshot, ask.model), it.class), it.route);
        format!("{}:{}", provider.name, it.name.resolve(snapshot, ask.model))
    };
    Ok(plan.targets().iter().map(text).collect())
}

fn ask(model: &str) -> Ask<'_> {
    Ask { model, dialect: DIALECT, caller: None, state: State::None, own_credential: false }
}

const UNKNOWN: Fault = Fault::new(FaultKind::NoSuchModel);

#[test]
fn names_lead_where_the_configuration_says() {
    let snapshot = build(draft());
    let long = "m".repeat(MODEL_NAME_BYTES_MAX + 1);
    for (model, expect) in [
        ("fast", Ok(vec!["one:big-1", "two:small-1", "one:small-2"])),
        ("one/big-9", Ok(vec!["one:big-9"])),
        ("two/vendor/deep", Ok(vec!["two:vendor/deep"])),
        ("one/aliased", Ok(vec!["two:real"])),
        ("bare", Ok(vec!["one:bare", "two:bare"])),
        ("nobody/model", Ok(vec!["one:nobody/model", "two:nobody/model"])),
        ("/model", Ok(vec!["one:/model", "two:/model"])),
        ("one/", Err(UNKNOWN)),
        ("foreign/f-1", Err(UNKNOWN)),
        ("abroad", Err(UNKNOWN)),
        ("", Err(UNKNOWN)),
        (&long, Err(UNKNOWN)),
    ] {
        let expect = expect.map(|it| it.iter().map(ToString::to_string).collect());
        assert_eq!(planned(&snapshot, ask(model)), expect, "{model}");
    }
}

#[test]
fn only_public_models_exist_when_the_file_says_so() {
    let snapshot = build(Draft { models_only: true, ..draft() });
    assert!(planned(&snapshot, ask("fast")).is_ok());
    assert_eq!(planned(&snapshot, ask("bare")), Err(UNKNOWN));
    assert_eq!(planned(&snapshot, ask("one/big-9")), Err(UNKNOWN));
}

#[test]
fn a_name_that_a_caller_may_not_use_is_an_unknown_one() {
    let snapshot = build(draft());
    for (caller, model, expect) in [
        ("all", "bare", true),
        ("fast-only", "fast", true),
        ("fast-only", "bare", false),
        // The pattern is for the name asked for, not for the one behind it.
        ("fast-only", "one/big-1", false),
        ("nothing", "fast", false),
    ] {
        let caller = snapshot.callers.named(caller);
        assert!(caller.is_some());
        let got = planned(&snapshot, Ask { caller, ..ask(model) });
        assert_eq!(got.is_ok(), expect, "{caller:?} {model}");
        assert_eq!(got.err().unwrap_or(UNKNOWN), UNKNOWN);
    }
}

#[test]
fn the_chain_begins_where_its_cell_says() {
    let snapshot = build(draft());
    let cell = &snapshot.model(snapshot.model_named("fast").unwrap()).cell;
    cell.lead_with(2);
    assert_eq!(planned(&snapshot, ask("fast")).unwrap(), ["two:small-1", "one:small-2", "one:big-1"]);
    cell.lead_with(99);
    assert_eq!(planned(&snapshot, ask("fast")).unwrap(), ["one:big-1", "two:small-1", "one:small-2"]);
    cell.lead_with(2);
    let pinned = Ask { state: State::Asked, ..ask("fast") };
    assert_eq!(planned(&snapshot, pinned).unwrap(), ["one:big-1"], "what it continues is there");
}

/// The account that a call is tied to, by name, and the targets left to it.
fn tied(draft: Draft, ask: Ask<'_>) -> Result<(Option<String>, usize), FaultKind> {
    let snapshot = build(draft);
    let plan = plan(&snapshot, &ask).map_err(|it| it.kind)?;
    Ok((plan.only().map(|id| snapshot.account(id).name.to_string()), plan.targets().len()))
}

/// `fast` leads to `one` and `two`, each with these accounts and this state account.
fn with_accounts(one: (usize, Option<&str>), two: (usize, Option<&str>)) -> Draft {
    let mut draft = draft();
    for (at, (count, named)) in [(0, one), (2, two)] {
        let accounts = (0..count).map(|it| crate::attempt::world::account(&format!("{at}{it}"), &["k"]));
        draft.providers[at].accounts = accounts.collect();
        draft.providers[at].state_account = named.map(str::to_owned);
    }
    draft
}

#[test]
fn state_ties_a_call_to_the_account_that_was_named_or_is_the_only_one() {
    let several = |named| with_accounts((2, None), (2, named));
    let single = || with_accounts((1, None), (1, None));
    let unknown = Err(FaultKind::StateAccountUnknown);
    let named = Ok((Some("21".to_owned()), 1));
    for (draft, state, expect) in [
        (several(None), State::None, Ok((None, 3))),
        (several(None), State::Unasked, Ok((None, 3))),
        (several(None), State::Asked, unknown),
        (several(Some("21")), State::None, Ok((None, 3))),
        (several(Some("21")), State::Unasked, named.clone()),
        (several(Some("21")), State::Asked, named),
        (single(), State::Unasked, Ok((None, 3))),
        (single(), State::Asked, Ok((Some("00".to_owned()), 1))),
    ] {
        assert_eq!(tied(draft, Ask { state, ..ask("fast") }), expect, "{state:?}");
    }
}

#[test]
fn what_is_kept_and_names_no_model_is_at_the_provider_that_was_named() {
    let of = |draft: Draft, dialect| {
        let snapshot = build(draft);
        let plan = plan_of_state(&snapshot, dialect, false).map_err(|it| it.kind)?;
        let account = plan.only().expect("an account");
        assert_eq!(snapshot.account(account).provider, plan.targets()[0].provider);
        Ok(snapshot.account(account).name.to_string())
    };
    assert_eq!(of(with_accounts((1, None), (2, Some("21"))), DIALECT), Ok("21".to_owned()));
    assert_eq!(of(with_accounts((1, None), (2, None)), DIALECT), Ok("00".to_owned()));
    assert_eq!(of(with_accounts((2, None), (1, None)), DIALECT), Err(FaultKind::StateAccountUnknown));
    assert_eq!(of(draft(), crate::snapshot::DialectId(9)), Err(FaultKind::NoSuchOperation));
}

#[test]
fn a_caller_s_own_credential_goes_to_the_first_provider_that_takes_one() {
    let mut draft = with_accounts((2, None), (2, Some("21")));
    let own = |state| Ask { state, own_credential: true, ..ask("fast") };
    assert_eq!(
        tied(draft.clone(), own(State::None)),
        Ok((None, 3)),
        "nobody takes one: the operator's accounts"
    );
    draft.providers[2].passthrough = true;
    let callers = Ok((Some("(callers)".to_owned()), 1));
    for state in [State::None, State::Unasked, State::Asked] {
        assert_eq!(tied(draft.clone(), own(state)), callers, "{state:?}: kept at its own account");
    }
    assert_eq!(tied(draft.clone(), ask("fast")), Ok((None, 3)), "others use the operator's");
    let snapshot = build(draft);
    let plan = plan_of_state(&snapshot, DIALECT, true).unwrap();
    let account = snapshot.account(plan.only().unwrap());
    assert!(plan.is_with_own_credential() && account.of_callers);
    assert!(
        snapshot.providers.iter().all(|it| it.accounts.iter().all(|id| !snapshot.account(*id).of_callers))
    );
}

#[test]
fn a_plan_is_bounded() {
    let names: Vec<String> = (0..PLAN_TARGETS_MAX + 5).map(|at| format!("p{at}")).collect();
    let long: Vec<(&str, &str)> = names.iter().map(|it| (it.as_str(), "m")).collect();
    let snapshot = build(Draft {
        providers: names.iter().map(|it| provider(it, &[("a", &["k"])])).collect(),
        models: vec![chain("long", &long)],
        ..Draft::default()
    });
    for model in ["long", "bare"] {
        let planned = planned(&snapshot, ask(model)).unwrap();
        assert_eq!(planned.len(), PLAN_TARGETS_MAX);
        assert!(planned[0].starts_with("p0:"));
    }
}

#[test]
fn lists_show_what_a_caller_can_use_in_its_dialect() {
    let snapshot = build(draft());
    let visible = |caller: &str, dialect| -> Vec<String> {
        let caller = snapshot.callers.named(caller);
        visible_models(&snapshot, caller, dialect).map(|it| it.name.to_string()).collect()
    };
    assert_eq!(visible("all", DIALECT), ["fast", "one/aliased"]);
    assert_eq!(visible("all", OTHER_DIALECT), ["abroad", "fast"]);
    assert_eq!(visible("fast-only", DIALECT), ["fast"]);
    assert_eq!(visible("nothing", DIALECT), [""; 0]);
}
