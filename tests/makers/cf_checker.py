"""The CF checker of the IOOS compliance checker, which some installations lack."""

import logging
import re

import pytest


def cf_faults(path):
    """Return the messages about what CF requires and a file lacks, and the number of checks made; skip without a checker."""
    suite = pytest.importorskip("compliance_checker.suite")
    logging.getLogger("compliance_checker").setLevel(logging.ERROR)
    checks = suite.CheckSuite()
    checks.load_all_available_checkers()
    newest = max((name for name in checks.checkers if re.fullmatch(r"cf:1\.\d+", name)), key=lambda name: int(name[5:]))
    dataset = checks.load_dataset(str(path))
    results, errors = checks.run_all(dataset, [newest])[newest]
    dataset.close()
    required = [result for result in results if result.weight == 3 and _is_failed(result)]  # the rest CF only recommends
    return [*map(str, errors), *(message for result in required for message in result.msgs)], len(results)


def _is_failed(result):
    return not result.value if isinstance(result.value, bool) else result.value[0] < result.value[1]
