"""The OpenAI surface beside chat through the official SDK. Arguments: base URL (with /v1), key."""

import sys

import openai

BASE_URL, KEY = sys.argv[1:3]
MODEL = "gpt-5"
SOUND = bytes([0xFF, 0xFB, 0x90, 0x00, 0x0D, 0x0A])
# No text in any coding, with what looks like a form inside.
FILE = bytes(range(256)) * 40 + b"\r\n--other\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nnone\r\n" + b"\0" * 400_000

client = openai.OpenAI(api_key=KEY, base_url=BASE_URL, max_retries=0, timeout=20.0)


def responses():
    reply = client.responses.create(model=MODEL, input="CASE:text")
    assert reply.output_text == "hello world" and reply.usage.total_tokens == 26, reply
    for more in ({"store": False}, {"store": True}, {"previous_response_id": "resp_1"}):
        assert client.responses.create(model=MODEL, input="CASE:text", **more).id == "resp_1"
    kinds = [event.type for event in client.responses.create(model=MODEL, input="CASE:text", stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed" and len(kinds) == 10, kinds
    with client.responses.stream(model=MODEL, input="CASE:text") as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert pieces == ["hello", " world"], pieces
        assert stream.get_final_response().output_text == "hello world"
    assert client.responses.input_tokens.count(model=MODEL, input="CASE:text").input_tokens == 20


def stored():
    assert client.responses.retrieve("resp_1").output_text == "hello world"
    assert client.responses.cancel("resp_1").status == "cancelled"
    assert [item.id for item in client.responses.input_items.list("resp_1", limit=10)] == ["msg_0"]
    client.responses.delete("resp_1")
    try:
        client.responses.retrieve("resp_2")
    except openai.NotFoundError as error:
        assert "resp_2" in str(error), error
    else:
        raise AssertionError("an unknown response raised nothing")


def embeddings():
    # Asks for base64 by itself, then for numbers.
    for more in ({}, {"encoding_format": "float"}):
        reply = client.embeddings.create(model="text-embedding-3-small", input="CASE:text", **more)
        assert reply.data[0].embedding == [0.5, -1.0] and reply.usage.total_tokens == 4, reply


def completions():
    assert client.completions.create(model=MODEL, prompt="CASE:text").choices[0].text == "hello world"
    chunks = list(client.completions.create(model=MODEL, prompt="CASE:text", stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "hello world", chunks
    assert not any(chunk.usage for chunk in chunks), "the usage chunk was not asked for"


def images():
    assert client.images.generate(model="gpt-image-1", prompt="CASE:text").data[0].b64_json == "aGVsbG8="
    for size in (100, len(FILE)):
        image = ("image.png", FILE[:size], "image/png")
        assert client.images.edit(model="gpt-image-1", prompt="CASE:text", image=[image, image]).data[0].b64_json == "aGVsbG8="


def sound():
    assert client.audio.speech.create(model="tts-1", voice="alloy", input="CASE:text").content == SOUND
    for size in (100, len(FILE)):
        file = ("sound.wav", FILE[:size], "audio/wav")
        assert client.audio.transcriptions.create(model="whisper-1", file=file).text == "hello world"
    assert client.audio.translations.create(model="whisper-1", file=file).text == "hello world"


for check in (responses, stored, embeddings, completions, images, sound):
    check()
print("all checks passed")
