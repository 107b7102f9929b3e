"""Certificates, tokens and kubeconfigs of one test cluster, made on the spot with the openssl program and valid for two days.

Every identity has a bearer token (`--token-auth-file`): client certificates would buy nothing here and cost a key each.
"""

import dataclasses
import json
import pathlib
import secrets
import subprocess

from .pod_runner import addresses

# user name -> groups; the names of the two controllers are the ones that the API server's bootstrap RBAC policy knows.
IDENTITIES = {
    "admin": "system:masters",
    "pod-runner": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)
_EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2")


@dataclasses.dataclass(frozen=True)
class Credentials:
    """Where the files of one cluster are, and its tokens by user name."""

    folder: pathlib.Path
    tokens: dict[str, str]

    @property
    def ca_certificate(self) -> pathlib.Path:
        """The authority that signed the API server's certificate."""
        return self.folder / "ca.crt"

    def kubeconfig(self, user: str) -> pathlib.Path:
        """Write and return the kubeconfig of one of IDENTITIES."""
        path = self.folder / f"{user.rpartition(':')[2]}.kubeconfig"
        cluster = {"server": addresses.API_SERVER_URL, "certificate-authority": str(self.ca_certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }
        path.write_text(json.dumps(content, indent=1))
        path.chmod(0o600)
        return path


def create(folder: pathlib.Path) -> Credentials:
    """Make everything below `folder`, which must exist."""
    tokens = {user: secrets.token_urlsafe(24) for user in IDENTITIES}
    rows = [f'{token},"{user}",{user},"{IDENTITIES[user]}"' for user, token in tokens.items()]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    _openssl(folder, "req", "-x509", *_EC_KEY, "-subj", "/CN=test-cluster-ca", "-keyout", "ca.key", "-out", "ca.crt")
    names = [f"DNS:{name}" for name in _SERVER_NAMES]
    names += [f"IP:{ip}" for ip in ("127.0.0.1", addresses.HOST, addresses.API_SERVICE)]
    alternatives = f"subjectAltName={','.join(names)}"
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=kube-apiserver", "-addext", alternatives)
    usage = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth")
    _openssl(folder, "req", "-x509", *_EC_KEY, *signed, *usage, "-keyout", "server.key", "-out", "server.crt")
    # In the old PEM form: the API server finds no public key in PKCS #8.
    _openssl(folder, "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "accounts.key")
    return Credentials(folder, tokens)


def self_signed(folder: pathlib.Path, *names: str) -> tuple[bytes, bytes]:
    """Return certificate and key (PEM) of a server with these DNS names; the certificate is its own authority."""
    alternatives = ",".join(f"DNS:{name}" for name in names)
    options = (
        "-subj",
        "/CN=test",
        "-addext",
        f"subjectAltName={alternatives}",
        "-keyout",
        "own.key",
        "-out",
        "own.crt",
    )
    _openssl(folder, "req", "-x509", *_EC_KEY, *options)
    return (folder / "own.crt").read_bytes(), (folder / "own.key").read_bytes()


def _openssl(folder: pathlib.Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-500:]}")
