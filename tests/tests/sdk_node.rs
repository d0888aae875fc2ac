//! The official SDKs for Node: everything a program does with them is the same through the gateway.

mod sameness;

use sameness::{JUDGED, PASSED_ON, assert_same, config};
use tidegate_tests::sdk;
use tidegate_tests::{Gateway, IoChoice, both_drivers, provider};

fn run_both(driver: IoChoice, line: &str) {
    let (direct, behind) = (provider::start(), provider::start());
    let gateway = Gateway::start(driver, 2, &config(&behind));
    sdk::node("clients.mjs", &[&direct.url(), "key-direct", line, PASSED_ON]);
    sdk::node(
        "clients.mjs",
        &[&format!("http://{}", gateway.address()), sameness::VIRTUAL_KEY, line, PASSED_ON],
    );
    assert_same(&direct, &behind);
}

both_drivers! {
    /// Messages and chat completions by the current SDKs.
    fn current(driver) {
        run_both(driver, "current");
    }

    /// The line that speaks the older API version.
    fn older(driver) {
        run_both(driver, "older");
    }

    /// Responses, embeddings, completions, images, sound.
    fn surface(driver) {
        let (direct, behind) = (provider::start(), provider::start());
        let gateway = Gateway::start(driver, 2, &config(&behind));
        sdk::node("surface.mjs", &[&format!("{}/v1", direct.url()), "key-direct"]);
        sdk::node("surface.mjs", &[&format!("http://{}/v1", gateway.address()), sameness::VIRTUAL_KEY]);
        assert_same(&direct, &behind);
    }

    /// Each SDK's own class for what is judged on the way.
    fn typed_errors(driver) {
        for (status, line) in JUDGED.into_iter().flat_map(|status| [(status, "current"), (status, "older")]) {
            let behind = provider::start();
            let gateway = Gateway::start(driver, 1, &config(&behind));
            let url = format!("http://{}", gateway.address());
            sdk::node("clients.mjs", &[&url, sameness::VIRTUAL_KEY, line, status, "errors"]);
        }
    }
}
