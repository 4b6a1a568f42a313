"""Change one thing in the code at a time, and see that a test fails: mutation testing, by a sample.

    pip install cosmic-ray
    python tools/mutants.py --sample 300 --seed 0 --results mutants.jsonl

Cosmic Ray knows what can be changed; a process is forked for each change, in a copy of the
checkout, so that TensorFlow is imported once. A change by which the module can't be imported (of an
annotation, say) isn't counted; one that runs four times as long as its tests do is found.
What became of each is a line of the file of results, so the same command goes on after a break;
what survives is printed as a diff, to be looked at.
"""

import argparse
import collections
import difflib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # module: the tests that should notice
    "caffe": ["caffe"],
    "convolutionize": ["convolutionize"],
    "losses": ["losses"],
    "metrics": ["metrics"],
    "object_metrics": ["object_metrics"],
    "receptive_fields": ["receptive_fields"],
    "receptive_rules": ["receptive_fields"],
    "inference.tiles": ["tiles"],
}
FOUND, SURVIVED, NOT_A_MODULE = "found", "survived", "not a module"
CODES = {0: SURVIVED, 1: FOUND, 2: NOT_A_MODULE}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tensorflow", "keras", "scipy.ndimage", "pytest", "hypothesis"])


def all_mutants(module):
    """Return (module, operator, occurrence) of each change that can be made."""
    tree = get_ast(path_of(module).read_text())
    mutants = []
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        count = sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(tree))
        mutants += [(module, name, occurrence) for occurrence in range(count)]
    return mutants


def path_of(module, root=ROOT):
    return root / "keras_fcn" / f"{module.replace('.', '/')}.py"


def run_tests(root, module):
    """Import a module of the copy, run its tests, and exit with what came of it."""
    import pytest

    sys.dont_write_bytecode = True
    sys.stdout = sys.stderr = Path(os.devnull).open("w")
    sys.path.insert(0, str(root))
    try:
        __import__(f"keras_fcn.{module}")
    except Exception:
        sys.exit(2)
    files = [str(root / "tests" / f"test_{name}.py") for name in TESTS[module]]
    quick = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main([*quick, "--rootdir", str(root), "-c", str(root / "setup.cfg"), *files])
    sys.exit(0 if code == 0 else 1)


def result(root, module, seconds=None):
    """Return what became of the module as it is in the copy; what runs too long is found."""
    process = FORKS.Process(target=run_tests, args=(root, module))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return FOUND
    return CODES.get(process.exitcode, FOUND)


def try_mutant(root, module, name, occurrence, seconds):
    """Return what became of a change in the copy, and its diff."""
    path = path_of(module, root)
    code = path.read_text()
    changed = mutate_code(code, get_operator(name)(), occurrence)
    path.write_text(changed)
    outcome = result(root, module, seconds)
    path.write_text(code)
    diff = difflib.unified_diff(code.splitlines(), changed.splitlines(), n=1, lineterm="")
    return outcome, "\n".join(list(diff)[2:])


def results(path):
    """Return the lines of a file of results: module, operator, occurrence, outcome, diff."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=", ".join(TESTS))
    parser.add_argument("--sample", type=int, default=300, help="how many changes are tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, required=True, help="file of JSON lines")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        leave_out = shutil.ignore_patterns(".git", ".venv", "*.pyc", "build", "dist")
        shutil.copytree(ROOT, root, ignore=leave_out)
        seconds = {}
        for module in arguments.modules:
            begin = time.monotonic()
            if result(root, module) != SURVIVED:
                sys.exit(f"The tests of {module} should pass before it is changed.")
            seconds[module] = time.monotonic() - begin

        mutants = [mutant for module in arguments.modules for mutant in all_mutants(module)]
        sample = random.Random(arguments.seed).sample(mutants, min(arguments.sample, len(mutants)))
        print(f"{len(sample)} of {len(mutants)} changes", flush=True)
        done = {tuple(line[:3]) for line in results(arguments.results)}
        for mutant in sample:
            if mutant not in done:
                seconds_left = 30 + 4 * seconds[mutant[0]]
                line = [*mutant, *try_mutant(root, *mutant, seconds_left)]
                with arguments.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")

    counts = collections.Counter()
    for module, name, occurrence, outcome, diff in results(arguments.results):
        counts[module, outcome] += 1
        if outcome == SURVIVED:
            print(f"\n{module}, {name} {occurrence}\n{diff}")
    print("\nmodule: found, survived")
    for module in arguments.modules:
        print(f"{module}: {counts[module, FOUND]}, {counts[module, SURVIVED]}")


if __name__ == "__main__":
    main()
