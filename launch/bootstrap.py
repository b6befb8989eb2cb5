"""Fetches a checkout into an image that was built of another one, and starts the job.

python -c TEXT gs://BUCKET/…/SHA256.tar.gz SHA256 EXTRA FLAGS… (launch/request.py sends it)
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

address, sha256, extra, *flags = sys.argv[1:]
home = Path(os.environ.get("PODIUM_HOME", "/podium"))  # of the image's own checkout
from google.cloud import storage  # noqa: E402 (in the image, by the extra vertex)

bucket, _, name = address.removeprefix("gs://").partition("/")
blob = storage.Client().bucket(bucket).blob(name)
data = gzip.decompress(blob.download_as_bytes(timeout=600))
if hashlib.sha256(data).hexdigest() != sha256:
    sys.exit(f"{address} is damaged; delete it, and launch again")
checkout = home.parent / f"podium-{sha256[:16]}"
with tarfile.open(fileobj=io.BytesIO(data)) as tar:
    tar.extractall(checkout, filter="data")
lock = home / "uv.lock"
if not lock.exists() or lock.read_bytes() != (checkout / "uv.lock").read_bytes():
    print("bootstrap: uv.lock is not the image's; installing what differs", flush=True)
    extras = [word for name in (extra, "gcs", "vertex") for word in ("--extra", name)]
    sync = ["uv", "sync", "--locked", "--no-dev", "--no-install-project", "--inexact"]
    subprocess.run([*sync, *extras], cwd=checkout, check=True)
os.chdir(checkout)
os.environ["PYTHONPATH"] = f"{checkout / 'src'}{os.pathsep}{checkout}"
os.execvp("python", ["python", "-m", "launch.job", *flags])
