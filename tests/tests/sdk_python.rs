//! The official SDKs for Python: everything a program does with them is the same through the gateway, for the
//! program and
//! for the provider.

mod sameness;

use sameness::{JUDGED, PASSED_ON, assert_same, config};
use tidegate_tests::sdk;
use tidegate_tests::store::Store;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{Gateway, both_drivers, provider};

both_drivers! {
    /// Messages, streams, tools, thinking, images, counts, errors, time-outs.
    fn messages(driver) {
        let (direct, behind) = (provider::start(), provider::start());
        let gateway = Gateway::start(driver, 2, &config(&behind));
        sdk::python("messages.py", &[&direct.url(), "key-direct", PASSED_ON]);
        sdk::python("messages.py", &[&format!("http://{}", gateway.address()), sameness::VIRTUAL_KEY, PASSED_ON]);
        assert_same(&direct, &behind);
    }

    /// The line of SDKs that speaks the older API version, with the key in its own field.
    fn messages_by_the_older_line(driver) {
        let (direct, behind) = (provider::start(), provider::start());
        let gateway = Gateway::start(driver, 2, &config(&behind));
        sdk::python_older("messages.py", &[&direct.url(), "key-direct", PASSED_ON]);
        sdk::python_older("messages.py", &[&format!("http://{}", gateway.address()), sameness::VIRTUAL_KEY, PASSED_ON]);
        assert_same(&direct, &behind);
    }

    /// Chat completions, with and without the usage chunk.
    fn chat(driver) {
        let (direct, behind) = (provider::start(), provider::start());
        let gateway = Gateway::start(driver, 2, &config(&behind));
        sdk::python("chat.py", &[&format!("{}/v1", direct.url()), "key-direct", "400,404"]);
        sdk::python("chat.py", &[&format!("http://{}/v1", gateway.address()), sameness::VIRTUAL_KEY, "400,404"]);
        assert_same(&direct, &behind);
    }

    /// Responses, embeddings, completions, images, sound.
    fn surface(driver) {
        let (direct, behind) = (provider::start(), provider::start());
        let gateway = Gateway::start(driver, 2, &config(&behind));
        sdk::python("surface.py", &[&format!("{}/v1", direct.url()), "key-direct"]);
        sdk::python("surface.py", &[&format!("http://{}/v1", gateway.address()), sameness::VIRTUAL_KEY]);
        assert_same(&direct, &behind);
        sdk::python("surface.py", &[&format!("http://{}/openai/v1", gateway.address()), sameness::VIRTUAL_KEY]);
    }

    /// Files and batches of both dialects, of two tenants.
    fn objects(driver) {
        let store = Store::default();
        let behind = Upstream::start(move |heard| store.answer(heard));
        let keys = ["one", "two"].map(|it| format!("vk-{it}-0123456789-0123456789-0123456789"));
        let [one, two] = &keys;
        let yaml = format!(
            "providers:\n  anthropic: {{ base_url: \"{url}\", keys: [{{ name: k, value: key-1 }}] }}\n\
             \x20 openai: {{ base_url: \"{url}/v1\", keys: [{{ name: k, value: key-2 }}] }}\nvirtual_keys:\n\
             - {{ name: one, key: \"{one}\", operations: [generation, files, batches], models: [\"ok-*\"] }}\n\
             - {{ name: two, key: \"{two}\", operations: [generation, files, batches], models: [\"ok-*\"] }}\n",
            url = behind.url()
        );
        let gateway = Gateway::start(driver, 2, &yaml);
        sdk::python("objects.py", &[&format!("http://{}", gateway.address()), one, two]);
    }

    /// Each SDK's own class for what is judged on the way.
    fn typed_errors(driver) {
        for status in JUDGED {
            let behind = provider::start();
            let gateway = Gateway::start(driver, 1, &config(&behind));
            let url = format!("http://{}", gateway.address());
            sdk::python("messages.py", &[&url, sameness::VIRTUAL_KEY, status, "errors"]);
            if status != "529" {
                sdk::python("chat.py", &[&format!("{url}/v1"), sameness::VIRTUAL_KEY, status, "errors"]);
            }
        }
    }

    /// What only the gateway answers: lists, its own refusals, both forms of a credential.
    fn the_gateways_own_answers(driver) {
        let behind = provider::start();
        let gateway = Gateway::start(driver, 2, &config(&behind));
        let url = format!("http://{}", gateway.address());
        sdk::python("gateway.py", &[&url, sameness::VIRTUAL_KEY, sameness::ONE_CALL_KEY]);
    }
}
