#!/usr/bin/env python3
"""Checks the dependency graph against the layers and against deny.toml. Reads `cargo metadata`, changes nothing.

Layers: who may import whom, and which crate alone may touch a library. Policy (licences, bans, duplicates, sources)
stands in deny.toml. Also: no dependency is declared that no file of its package names.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"

# A package may have these packages of the workspace as normal dependencies. Left never sees right.
LAYERS = {
    "ductile-domain": set(),
    "ductile-yaml": set(),
    "ductile-otp": set(),
    "ductile-config": {"ductile-domain", "ductile-yaml"},
    "ductile-plugin": {"ductile-domain", "ductile-yaml"},
    "ductile-ledger": {"ductile-domain"},
    "ductile-api": {"ductile-domain", "ductile-ledger"},
    "ductile-actors": {
        "ductile-otp", "ductile-domain", "ductile-config", "ductile-ledger", "ductile-plugin", "ductile-api",
    },
    "ductile-cli": {
        "ductile-actors", "ductile-api", "ductile-domain", "ductile-config", "ductile-ledger", "ductile-plugin",
    },
    "ductile": {"ductile-cli"},
}
# Measure and try the layers from outside.
OUTSIDE = {"ductile-bench", "ductile-fuzz"}

# Only these packages may have the library as a normal dependency.
FENCES = {
    "serde-saphyr": {"ductile-yaml"},
    "sqlx": {"ductile-ledger"},
    "rusqlite": {"ductile-ledger"},
    "ractor": {"ductile-otp"},
    "axum": {"ductile-api"},
    "tower": {"ductile-api"},
    "clap": {"ductile-cli"},
    "fail": {"ductile-ledger"},
    "hyper": {"ductile-api", "ductile-cli"},
}
# The domain is pure: nothing that does IO, waits, or is random. Zones are tables that are compiled in.
DOMAIN_MAY_USE = {"serde", "serde_json", "uuid", "chrono", "chrono-tz", "croner", "blake3", "regex"}

# Processes are spawned here only; tests, build scripts and benchmarks aside.
MAY_SPAWN = {
    "src/plugin/process.rs",  # plugins
    "src/cli/demo/gateway.rs",  # the demo starts gateways as an operator would
}
SPAWN = re.compile(r"\bprocess::Command\b|\bCommand::new\(|\bposix_spawn\b|\bfork\(\)")


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE).stdout)


def layers(packages, problems):
    for package in packages:
        name = package["name"]
        if name not in LAYERS and name not in OUTSIDE:
            problems.append(f"{name}: which layer is it? add it to LAYERS in {pathlib.Path(__file__).name}")
        for dependency in package["dependencies"]:
            if dependency["kind"] is not None or name in OUTSIDE:
                continue
            on = dependency["name"]
            if on.startswith("ductile") and on not in LAYERS.get(name, set()):
                problems.append(f"{name} must not depend on {on}: it points against the layers")
            if name not in FENCES.get(on, {name}):
                problems.append(f"{name} must not depend on {on}: only {', '.join(sorted(FENCES[on]))} may")
            if name == "ductile-domain" and on not in DOMAIN_MAY_USE:
                problems.append(f"{name} must not depend on {on}: the domain is pure")


def spawning(problems):
    places = [*(TOP / "src").rglob("*.rs"), *(TOP / "actors").rglob("*.rs")]
    for path in sorted(places):
        relative = path.relative_to(TOP).as_posix()
        parts = set(relative.split("/"))
        if relative in MAY_SPAWN or parts & {"tests", "examples"} or path.name in {"build.rs", "tests.rs"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.strip().startswith("#[cfg(test)]"):
                break
            if SPAWN.search(line.split("//")[0]):
                problems.append(f"{relative}:{number}: spawns a process outside src/plugin")


def unused(packages, problems):
    for package in packages:
        root = pathlib.Path(package["manifest_path"]).parent
        # The root package is the binary and its tests; the other packages live below it, some inside one another.
        binary = [root / p for p in ("src/main.rs", "src/build.rs", "tests/black_box", "tests/schedules")]
        places = binary if root == TOP else [root]
        files = [f for p in places for f in (p.rglob("*.rs") if p.is_dir() else [p])]
        inside = {d for p in packages if root in (d := pathlib.Path(p["manifest_path"]).parent).parents}
        code = {True: "", False: ""}
        for file in files if root == TOP else [f for f in files if not inside & set(f.parents)]:
            is_test = bool({"tests", "examples"} & set(file.relative_to(root).parts))
            code[is_test] += file.read_text() + "\n"
        for dependency in package["dependencies"]:
            name = (dependency["rename"] or dependency["name"]).replace("-", "_")
            is_dev = dependency["kind"] == "dev"
            # Named for its feature `failpoints` alone, which the binary under test gets from here.
            if root == TOP and name == "ductile_ledger":
                continue
            if not re.search(rf"\b{name}\b", code[False] + (code[True] if is_dev else "")):
                where = "none of its files" if is_dev else "none of its files outside tests"
                problems.append(f"{package['name']}: dependency {dependency['name']} is named in {where}")


def licence_is_allowed(expression, allow):
    """An SPDX expression of OR, AND and brackets; `/` is the old way to write OR."""
    tokens = re.findall(r"\(|\)|\bOR\b|\bAND\b|[A-Za-z0-9.+-]+(?: WITH [A-Za-z0-9.-]+)?", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = one() and value
        return value

    def one():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        return token in allow

    return either()


def policy(found, reached, problems):
    rules = tomllib.loads((TOP / "deny.toml").read_text())
    allow = set(rules["licenses"]["allow"])
    banned = {entry["crate"] for entry in rules["bans"]["deny"]}
    skipped = {entry["crate"].split("@")[0]: entry["reason"] for entry in rules["bans"]["skip"]}
    versions = {}
    for package in found["packages"]:
        if package["id"] not in reached:
            continue
        name, version, licence = package["name"], package["version"], package["license"]
        versions.setdefault(name, set()).add(version)
        if not licence:
            problems.append(f"{name} {version}: no licence is declared")
        elif not licence_is_allowed(licence, allow):
            problems.append(f"{name} {version}: licence {licence} is not on the list in deny.toml")
        if name in banned:
            problems.append(f"{name} {version}: banned in deny.toml")
        source = package["source"]
        if source is not None and not source.startswith("registry+"):
            problems.append(f"{name} {version}: comes from {source.split('+')[0]}, not from the registry")
    several = {name: found for name, found in versions.items() if len(found) > 1}
    for name in sorted(several.keys() - skipped.keys()):
        problems.append(f"{name}: versions {', '.join(sorted(several[name]))}; unite them, or add a skip with a reason to deny.toml")
    for name in sorted(skipped.keys() - several.keys()):
        problems.append(f"{name}: has one version now; remove its skip from deny.toml")
    return len(versions), len(several)


def main():
    found = metadata()
    members = set(found["workspace_members"])
    packages = [p for p in found["packages"] if p["id"] in members]
    reached = {node["id"] for node in found["resolve"]["nodes"]}
    problems = []
    layers(packages, problems)
    spawning(problems)
    unused(packages, problems)
    crates, several = policy(found, reached, problems)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(packages)} packages of ours, {crates} crates in all, {several} of them in several versions: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
