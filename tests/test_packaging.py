"""What is on disk, what the wheel ships and what the import contracts know are the same packages."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
OURS = {
    "adapters",
    "cache",
    "credentials",
    "gateway",
    "identity",
    "mapping",
    "model",
    "resolvers",
    "sandbox",
    "schema",
    "sources",
    "store",
    "sync",
    "telemetry",
}


def test_folders_wheel_packages_and_import_contracts_agree() -> None:
    wheel = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    contracts = set(PROJECT["tool"]["importlinter"]["root_packages"])

    assert PACKAGES - {"benchmarks"} == wheel == contracts == OURS


def test_package_files_hold_a_docstring_and_nothing_else() -> None:
    for path in ROOT.glob("*/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_other_distribution_owns_our_names() -> None:
    owners = packages_distributions()

    assert {name: owners[name] for name in OURS if set(owners.get(name, ())) - {"customer360"}} == {}


def test_the_wheel_ships_static_files_and_no_tests(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "-q", "--wheel", "--offline", "--no-build-isolation", "-o", tmp_path, ROOT],
        check=True,
    )

    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    for needed in (
        "schema/schema.graphql",
        "gateway/static/graphiql/graphiql.min.js",
        "store/migrations/versions/0001_foundation.py",
        "sandbox/shopify.graphql",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
