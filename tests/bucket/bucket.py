"""Attachments in a bucket: what is kept there, who gets it, and what is left when nobody needs it.

Without arguments it plays the bucket, and runs itself as `people` beside a server that keeps its
attachments there.
"""

import logging
import os
import socket
import subprocess
import sys
import time
import uuid

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "files"
MIB = 1024 * 1024
PATIENCE = 10


def play():
    # It trips over parts that are still coming when their upload is given up.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    host, port = bucket.get_host_and_port()
    environment = os.environ | {
        "AWS_ENDPOINT": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_REGION": "us-east-1",
        "ATTACHMENTS_URL": f"s3://{BUCKET}/chat/files",
    }
    people = [".ci/with-server", sys.executable, __file__, "people"]
    try:
        refused = subprocess.run(people, env=environment, stderr=subprocess.PIPE, text=True)
        assert refused.returncode != 0, "a server started without its bucket"
        line = refused.stderr.strip().splitlines()[-1]
        assert "ATTACHMENTS_URL" in line and "NoSuchBucket" in line, line
        store(environment).create_bucket(Bucket=BUCKET)
        return subprocess.run(people, env=environment).returncode
    finally:
        bucket.stop()


def store(environment):
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


class Person:
    def __init__(self, name):
        self.url = os.environ["MESSENGER_URL"]
        self.http = requests.Session()
        body = {"username": name, "password": "correct horse battery staple"}
        self.me = self.call("POST", "/v1/auth/register", json=body)
        self.http.headers["Authorization"] = f"Bearer {self.me['tokens']['access_token']}"

    def ask(self, method, path, **more):
        return self.http.request(method, self.url + path, timeout=60, **more)

    def call(self, method, path, **more):
        answer = self.ask(method, path, **more)
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json()["data"]

    def upload(self, content):
        headers = {"Content-Type": "application/octet-stream"}
        path = "/v1/attachments?name=file.bin"
        return self.call("POST", path, data=content, headers=headers)["id"]

    def send(self, conversation, attachment):
        body = {"client_message_id": str(uuid.uuid4()), "attachment_ids": [attachment]}
        path = f"/v1/conversations/{conversation}/messages"
        return self.call("POST", path, json=body | {"content": "here"})["id"]

    def content(self, attachment, **headers):
        return self.ask("GET", f"/v1/attachments/{attachment}/content", headers=headers)


def people():
    bucket = store(os.environ)
    keys = lambda: {
        entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    }
    alice, bob, carol = (Person(name) for name in ["alice", "bob", "carol"])
    other = {"other_user_id": bob.me["user"]["id"]}
    conversation = alice.call("POST", "/v1/conversations/direct", json=other)["id"]
    before = keys()
    assert before == {"chat/files/place"}, before

    # In one piece, in exactly two parts of 8 MiB, and in five.
    for length in [0, 1, 16 * MIB, 33 * MIB + 7]:
        content = os.urandom(length)
        attachment = alice.upload(content)
        message = alice.send(conversation, attachment)
        assert bob.content(attachment).content == content, length
        if length > 1:
            part = bob.content(attachment, Range=f"bytes=5-{length - 3}")
            assert part.status_code == 206 and part.content == content[5:-2], length
        assert carol.content(attachment).status_code == 404, length
    assert len(keys() - before) == 4, keys()

    # What a deleted message had goes with it.
    path = f"/v1/conversations/{conversation}/messages/{message}"
    assert alice.ask("DELETE", path).ok
    assert alice.content(attachment).status_code == 404
    until(lambda: len(keys() - before) == 3, keys)

    # Nothing is left of what a client began to send.
    began = keys()
    target = alice.url.removeprefix("http://").split(":")
    with socket.create_connection((target[0], int(target[1]))) as client:
        head = [
            "POST /v1/attachments?name=x HTTP/1.1",
            f"Host: {target[0]}",
            f"Authorization: {alice.http.headers['Authorization']}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {64 * MIB}",
        ]
        client.sendall("\r\n".join([*head, "", ""]).encode() + os.urandom(20 * MIB))
        uploads = lambda: bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        until(uploads, keys)
    until(lambda: not uploads(), uploads)
    assert keys() == began, keys()
    print("a bucket keeps attachments")


def until(is_so, seen):
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, seen()
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(people() if sys.argv[1:] == ["people"] else play())
