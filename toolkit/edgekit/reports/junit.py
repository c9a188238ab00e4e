"""Write a comparison as JUnit XML, which CI servers show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from edgekit.core.comparison import REGRESSION, Comparison
from edgekit.reports.comparison_words import ratio_words


def junit(found: Comparison, *, judged: tuple[str, ...]) -> str:
    """Return one test case a ratio; a regression of a judged one is a failure."""
    suite = ET.Element("testsuite", name="edgekit compare", timestamp=found.when)
    failures = 0
    for ratio in found.ratios:
        case = ET.SubElement(
            suite, "testcase", classname=f"{found.b.name}.{found.device}",
            name=f"{found.span} {ratio.what} against {found.a.name}",
        )  # fmt: skip
        words = ratio_words(ratio)
        if found.emulated:
            ET.SubElement(case, "skipped", message=f"emulated by {found.emulated}: not judged")
        elif ratio.verdict == REGRESSION and ratio.what in judged:
            failures += 1
            ET.SubElement(
                case, "failure", message=f"regression: {words}", type="regression"
            ).text = "\n".join(found.differences)
        ET.SubElement(case, "system-out").text = words
    suite.set("tests", str(len(found.ratios)))
    suite.set("failures", str(failures))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
