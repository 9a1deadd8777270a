"""ORAS' SDK against a registry: address, name and password are its arguments. Prints "all is well" at its end."""

import filecmp
import os
import sys

import oras.client

address, name, password = sys.argv[1:]
client = oras.client.OrasClient(hostname=address, insecure=True)
client.login(username=name, password=password, hostname=address)

for chunked in (False, True):
    target = f"{address}/oras/hello:1.{int(chunked)}.0"
    # Manifests that differ: the SDK deletes a tag by its manifest's digest, and so all tags of it.
    answer = client.push(
        target=target,
        files=["hello.wasm:application/wasm"],
        manifest_annotations={"chunked": str(chunked)},
        do_chunked=chunked,
        chunk_size=50_000,
    )
    assert answer.status_code == 201, answer.text
    folder = f"pulled-{int(chunked)}"
    client.pull(target=target, outdir=folder)
    assert filecmp.cmp("hello.wasm", os.path.join(folder, "hello.wasm"), shallow=False)

container = client.get_container(f"{address}/oras/hello")
assert client.get_tags(container) == ["1.0.0", "1.1.0"], client.get_tags(container)
assert client.delete_tags(f"{address}/oras/hello", ["1.0.0"]) == ["1.0.0"]
assert client.get_tags(container) == ["1.1.0"], client.get_tags(container)
print("all is well")
