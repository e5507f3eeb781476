"""What of the documentation is not run, and why."""

# Commands of `zerotrust` that need no cluster when they are given files.
OFFLINE = {"diff", "explain", "graph", "import", "render", "test"}

# Pages that begin without anything: run from the first command on, on a control plane of their own.
FIRST_STEPS = ("README.md", "docs/quickstart.md")

# Programs that are not here, or that do their work outside the repository.
NOT_RUN = {
    "argocd": "there is no Argo CD; its health checks are tested in a Lua interpreter",
    "docker": "there is no Docker engine",
    "git": "it would change the checkout",
    "helm": "tests/packaging/test_install.py runs it on a cluster of its own",
    "make": "tests/e2e runs `make demo`; the others would run themselves, or take minutes",
    "opa": "tests/opa runs it with this configuration",
}

# Page (or *), regular expression that is searched in the command, reason. The first that fits counts. Options, targets and files
# of what is not run are checked all the same.
CHECKED_ONLY: tuple[tuple[str, str, str], ...] = (
    ("*", r"zerotrust (controller|bundle-server|forward-auth)", "runs until it is stopped; other tests start it"),
    ("*", r"zerotrust-bundle-server", "the bundle server is not installed here; its own tests run it"),
    ("*", r"zerotrust doctor", "its answer is about the cluster; tests/integration/test_plugin.py runs it"),
    ("*", r"zerotrust rotate", "needs decision points; tests/integration/test_keys_cli.py has them"),
    ("*", r"path/to/overlay", "the overlay is the reader's"),
    ("*", r"rollout status", "there is no kubelet, so no pod runs"),
    ("docs/guides/gitops.md", r"configmap argocd-cm", "Argo CD is not installed here; tests/gitops tries what it gets"),
    (
        "*",
        r"constraint|credentialaccess|violations|gatekeeper",
        "needs Gatekeeper; its own tests have it",
    ),
    (
        "docs/guides/api-keys.md",
        r"keys (rotate|revoke)",
        "needs decision points; tests/integration/test_keys_cli.py has them",
    ),
    (
        "docs/guides/pod-labels.md",
        r"custom-columns",
        "tests/integration/test_pod_labels.py runs it on pods that are as the page says",
    ),
    ("docs/guides/trust-domains.md", r"--from-file", "the files are the reader's"),
    ("docs/guides/migrate-network-policies.md", r"edited.yaml", "the reader has edited it"),
    (
        "docs/guides/migrate-network-policies.md",
        r"^kubectl|import -[An]",
        "tests/integration/test_import.py migrates a cluster",
    ),
    (
        "docs/guides/migrate-from-cert-manager.md",
        r"^kubectl|zerotrust verify",
        "tests/integration/test_import.py migrates a cluster",
    ),
    ("docs/guides/install.md", r"^kubectl", "tests/packaging/test_install.py runs it on a cluster of its own"),
    ("docs/guides/uninstall.md", r"^kubectl", "tests/packaging/test_install.py runs it on a cluster of its own"),
)

# Kinds that the local control plane does not serve: such YAML is read, and no more.
FOREIGN = {
    "Kustomization": "is read by kubectl itself, not by an API server",
}
