"""Files, batches and stored responses of the mock provider through the official SDKs. Arguments: base URL, key, another key."""

import json
import sys

import anthropic
import openai

BASE_URL, KEY, OTHER = sys.argv[1:4]
MODEL = "gpt-6-sol"
CONTENT = bytes(range(256)) * 1_000


def claude(key):
    return anthropic.Anthropic(api_key=key, base_url=BASE_URL, max_retries=0, timeout=20.0)


def chat(key):
    return openai.OpenAI(api_key=key, base_url=BASE_URL + "/v1", max_retries=0, timeout=20.0)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def batches_of_messages():
    batches, others = claude(KEY).messages.batches, claude(OTHER).messages.batches
    params = {"model": "claude-opus-5-5", "max_tokens": 16, "messages": [{"role": "user", "content": "MARK:m"}]}
    made = batches.create(requests=[{"custom_id": it, "params": params} for it in "ab"])
    assert batches.retrieve(made.id).request_counts.succeeded == 2
    results = list(batches.results(made.id))
    assert [it.custom_id for it in results] == ["a", "b"], results
    assert results[0].result.message.content[0].text.startswith("MARK:m "), results
    assert [it.id for it in batches.list()] == [made.id] and not list(others.list())
    raises(anthropic.NotFoundError, lambda: others.results(made.id))
    batches.delete(made.id)
    raises(anthropic.NotFoundError, lambda: batches.retrieve(made.id))


def files():
    for own, others, missing in (
        (claude(KEY).beta.files, claude(OTHER).beta.files, anthropic.NotFoundError),
        (chat(KEY).files, chat(OTHER).files, openai.NotFoundError),
    ):
        if missing is anthropic.NotFoundError:
            made = own.upload(file=("f.bin", CONTENT, "application/octet-stream"))
            fetch = lambda files: files.download(made.id).read()
        else:
            made = own.create(file=("f.bin", CONTENT), purpose="user_data")
            fetch = lambda files: files.content(made.id).read()
        assert fetch(own) == CONTENT
        assert made.id in [it.id for it in own.list()] and not list(others.list())
        raises(missing, lambda: fetch(others))
        raises(missing, lambda: others.delete(made.id))
        own.delete(made.id)
        raises(missing, lambda: fetch(own))


def batches_of_files():
    client, other = chat(KEY), chat(OTHER)
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": MODEL, "input": "MARK:l"}}
    file = client.files.create(file=("f.jsonl", json.dumps(line).encode()), purpose="batch")
    settings = dict(endpoint="/v1/responses", completion_window="24h", input_file_id=file.id)
    raises(openai.NotFoundError, lambda: other.batches.create(**settings))
    batch = client.batches.create(**settings)
    assert batch.status == "completed" and batch.request_counts.completed == 1, batch
    assert b"MARK:l " in client.files.content(batch.output_file_id).read()
    raises(openai.NotFoundError, lambda: other.files.content(batch.output_file_id))


def responses():
    own, others = chat(KEY).responses, chat(OTHER).responses
    first = own.create(model=MODEL, input="MARK:r")
    assert first.output_text.startswith("MARK:r "), first
    with own.stream(model=MODEL, input="go on", previous_response_id=first.id) as stream:
        kinds = [event.type for event in stream]
        second = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    assert [it.role for it in own.input_items.list(second.id, order="asc")] == ["user", "assistant", "user"]
    assert own.retrieve(second.id).output_text == second.output_text
    raises(openai.NotFoundError, lambda: others.retrieve(second.id))
    raises(openai.NotFoundError, lambda: others.create(model=MODEL, input="x", previous_response_id=second.id))
    raises(openai.NotFoundError, lambda: others.delete(second.id))
    own.delete(second.id)
    raises(openai.NotFoundError, lambda: own.retrieve(second.id))
    later = own.create(model=MODEL, input="x", background=True)
    assert later.status == "queued" and own.cancel(later.id).status == "completed", "it was done by then"
    raises(openai.BadRequestError, lambda: own.cancel(first.id))


def the_rest():
    client = chat(KEY)
    coded, plain = (
        client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=3, **more).data
        for more in ({}, {"encoding_format": "float"})
    )
    assert len(plain) == 2 and [round(it, 6) for it in coded[1].embedding] == [round(it, 6) for it in plain[1].embedding]
    assert client.images.generate(model=MODEL, prompt="x").data[0].b64_json
    assert client.audio.speech.create(model=MODEL, voice="alloy", input="x").content.startswith(b"\xff\xfb")
    assert client.audio.transcriptions.create(model=MODEL, file=("f.wav", b"sound")).text


for check in (batches_of_messages, files, batches_of_files, responses, the_rest):
    check()
print("all checks passed")
