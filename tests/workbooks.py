"""Workbooks for tests, put together by hand: what Excel writes, and what it never would."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from string import ascii_uppercase

NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_STYLES = (
    f'<styleSheet xmlns="{NAMESPACE}"><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/>'
    "</cellXfs></styleSheet>"
)
DATE, TIME = 1, 2
"""Styles of cells."""


def text(value: str) -> str:
    """A cell of text, without its place."""
    return f't="inlineStr"><is><t>{value}</t></is>'


def number(value: str, *, style: int = 0) -> str:
    """A cell with a number."""
    return f's="{style}"><v>{value}</v>'


def row(at: int, cells: Sequence[str]) -> str:
    """A row of cells; an empty one is left out."""
    inner = "".join(f'<c r="{ascii_uppercase[place]}{at}" {cell}</c>' for place, cell in enumerate(cells) if cell)
    return f'<row r="{at}">{inner}</row>'


def workbook(
    *sheets: str,
    merged: str = "",
    extra: dict[str, bytes] | None = None,
    styles: str = _STYLES,
    epoch_1904: bool = False,
) -> bytes:
    """A workbook with sheets called Sheet1, Sheet2 and so on, of these rows; ``merged`` is a range in each."""
    merges = f'<mergeCells count="1"><mergeCell ref="{merged}"/></mergeCells>' if merged else ""
    members: dict[str, str | bytes] = {"xl/styles.xml": styles, **(extra or {})}
    listed = relations = ""
    for place, rows in enumerate(sheets, start=1):
        listed += f'<sheet name="Sheet{place}" sheetId="{place}" r:id="r{place}"/>'
        relations += f'<Relationship Id="r{place}" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet{place}.xml"/>'
        members[f"xl/worksheets/sheet{place}.xml"] = (
            f'<worksheet xmlns="{NAMESPACE}"><sheetData>{rows}</sheetData>{merges}</worksheet>'
        )
    relations += f'<Relationship Id="r0" Type="{_RELATIONS}/styles" Target="styles.xml"/>'
    epoch = '<workbookPr date1904="1"/>' if epoch_1904 else ""
    members["xl/workbook.xml"] = (
        f'<workbook xmlns="{NAMESPACE}" xmlns:r="{_RELATIONS}">{epoch}<sheets>{listed}</sheets></workbook>'
    )
    members["xl/_rels/workbook.xml.rels"] = f'<Relationships xmlns="{_PACKAGE}">{relations}</Relationships>'
    start = f'<Relationship Id="r1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/>'
    members["_rels/.rels"] = f'<Relationships xmlns="{_PACKAGE}">{start}</Relationships>'
    members["[Content_Types].xml"] = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()
