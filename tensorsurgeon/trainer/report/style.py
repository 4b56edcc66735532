"""The page's style sheet: light, dark, printed, and as narrow as a telephone.

Colours of runs are those of Okabe and Ito (2008), which people who are colour-blind can tell
apart. Shades of maps go from the page's own colour to the one furthest from it.
"""

from collections.abc import Sequence

from tensorsurgeon.trainer.report.layers import LEVELS

_LIGHT_SHADES = ("#e8eff5", "#8fc0e0", "#2d83bd", "#0b4a7f", "#04192e")
_DARK_SHADES = ("#1d2731", "#12507d", "#2f91cc", "#9bd3f5", "#f4fbff")

_LIGHT = """
  --paper: #fdfdfc; --card: #f4f5f4; --ink: #1c2127; --muted: #59626c; --hair: #dfe2e4;
  --good: #00704f; --bad: #b34700; --seam: #d55e00;
  --copied: #b4bcc4; --merged: #cc79a7; --new: #009e73;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8578f; --c4: #a87400; --c5: #3a9bd4;
  --c6: #59626c;
"""
_DARK = """
  --paper: #14171a; --card: #1c2024; --ink: #e8eaec; --muted: #9aa4ae; --hair: #2e343a;
  --good: #35c79a; --bad: #ff9a4d; --seam: #ff8c3a;
  --copied: #5a646e; --merged: #cc79a7; --new: #19b88a;
  --c0: #56b4e9; --c1: #ff8c3a; --c2: #19b88a; --c3: #e093bf; --c4: #e69f00; --c5: #f0e442;
  --c6: #9aa4ae;
"""


def mixed(stops: Sequence[str], share: float) -> str:
    """A colour between stops that lie evenly; `share` is from 0 to 1."""
    place = share * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    channels = (
        round(int(a, 16) + (int(b, 16) - int(a, 16)) * (place - index))
        for a, b in ((stops[index][i : i + 2], stops[index + 1][i : i + 2]) for i in (1, 3, 5))
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _shades(stops: Sequence[str]) -> str:
    shares = (level / (LEVELS - 1) for level in range(LEVELS))
    return " ".join(f"--s{i}: {mixed(stops, share)};" for i, share in enumerate(shares))


_LEVEL_RULES = "\n".join(
    f".s{i} {{ stroke: var(--s{i}) }} .b{i} {{ background: var(--s{i}) }}" for i in range(LEVELS)
)
_COLOR_RULES = "\n".join(
    f".c{i} {{ stroke: var(--c{i}) }} .value.c{i}, .end.c{i} {{ color: var(--c{i}) }} "
    f".swatch.c{i} {{ background: var(--c{i}) }}"
    for i in range(7)
)

_RULES = """
* { box-sizing: border-box }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100% }
body { margin: 0; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums }
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 64px }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 8px; letter-spacing: -.015em;
  overflow-wrap: anywhere }
h2 { font-size: 19px; margin: 0 0 14px; letter-spacing: -.005em }
h3 { font-size: 14px; font-weight: 600; margin: 0 }
header p { margin: 0; color: var(--muted); overflow-wrap: anywhere }
header .stage { color: var(--c0); font-weight: 600; font-size: 13px }
section { margin-top: 44px; padding-top: 22px; border-top: 1px solid var(--hair) }
.headline { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 14px;
  margin: 28px 0 0 }
.headline div { background: var(--card); border-radius: 10px; padding: 14px 16px 16px }
.headline dt { font-size: 13px; color: var(--muted) }
.headline dd { margin: 0 }
.value { font-size: 27px; font-weight: 650; line-height: 1.35; letter-spacing: -.01em }
.value.good { color: var(--good) } .value.bad { color: var(--bad) }
.note { font-size: 13px; line-height: 1.4; color: var(--muted); margin: 8px 0 0;
  overflow-wrap: anywhere }
.unit { font-weight: 400; color: var(--muted) }
.pair, .three { display: grid; gap: 0 36px }
.pair .chart, .three .chart { padding-bottom: 24px }
.pair { grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)) }
.three { grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)) }
.chart { margin: 0 0 28px; min-width: 0; break-inside: avoid }
.pair .chart, .three .chart { margin: 0; display: grid; grid-row: span 3; row-gap: 0;
  grid-template: subgrid / minmax(0, 1fr) }
.legend + .chart, .legend + .pair { margin-top: 18px }
.chart + .wide { margin-top: 4px }
figcaption { margin-bottom: 8px }
figcaption .legend, .scale { margin-top: 3px }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0; padding: 0;
  font-size: 13px; color: var(--muted) }
.legend li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere }
.sample { width: 26px; height: 10px; flex: none; overflow: visible }
.frame { padding: 6px 16px 24px 46px }
.frame.labelled { padding-right: 56px }
.plot { position: relative; height: 190px; touch-action: pan-y }
.three .plot { height: 150px }
.middle .plot { height: 210px }
.tall .plot { height: 340px }
.plot > svg { overflow: visible; clip-path: inset(0 -7px) }
.plot svg, .kinds svg, .bars svg { position: absolute; inset: 0; width: 100%; height: 100%;
  pointer-events: none; display: block }
.plot span, .kinds span, .bars span { position: absolute; font-size: 12px; line-height: 1;
  white-space: nowrap; color: var(--muted) }
span.y { right: 100%; margin-right: 8px; transform: translateY(-50%) }
span.x { top: 100%; margin-top: 8px; transform: translateX(-50%) }
.plot span.end { left: 100%; margin-left: 9px; transform: translateY(-50%); font-weight: 600 }
.plot span.at { top: 4px; margin: 0 7px; color: var(--good); background: var(--paper);
  padding: 2px 3px; border-radius: 3px }
.plot span.glyph { transform: translate(-50%, -50%) }
span.glyph.skipped { color: var(--bad); font-weight: 700; font-size: 11px }
path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round;
  stroke-linecap: round }
.grid { stroke: var(--hair); stroke-width: 1; stroke-linecap: butt }
.any { stroke: var(--ink) }
.line { stroke-width: 1.75 }
.raw { stroke-width: 1; opacity: .32 }
.thin { stroke-width: 1 }
.held { stroke-width: 2.25 }
.line.sparse:not(.ring) { stroke-width: 0 }
.lone { stroke-width: 6 }
.other { stroke: var(--copied); stroke-width: 1 }
.ring { stroke-width: 8.5 } .hole { stroke: var(--paper); stroke-width: 4 }
.level { stroke-width: 1.5; stroke-dasharray: 6 4; stroke: var(--ink); stroke-linecap: butt }
.end.base { color: var(--ink) }
.mark { stroke-width: 1.25; stroke-linecap: butt }
.mark.resumed { stroke: var(--muted); stroke-dasharray: 1.5 3 }
.mark.passed { stroke: var(--good) }
.map { display: grid; grid-template-columns: 12px minmax(0, 3.4fr) minmax(0, 1fr); column-gap: 6px;
  padding: 0 14px 24px 30px }
.map.single { grid-template-columns: 12px minmax(0, 1fr) }
.kinds, .bars { position: relative }
.map > div, .map .plot { height: var(--height) }
.cells { background: repeating-linear-gradient(135deg, var(--paper) 0 3px, var(--hair) 3px 4px) }
.shades path { stroke-width: 1.02; vector-effect: none; stroke-linecap: butt }
.bars { margin-left: 10px }
.bars span.x:first-of-type { transform: none }
path.seam { stroke: var(--seam); stroke-width: 1.5; stroke-linecap: butt }
.kind.copied, .bar.copied { fill: var(--copied) }
.kind.merged, .bar.merged { fill: var(--merged) }
.kind.new, .bar.new { fill: var(--new) }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; flex: none;
  margin-right: 6px }
.legend .swatch { margin: 0 }
.swatch.copied { background: var(--copied) } .swatch.merged { background: var(--merged) }
.swatch.new { background: var(--new) }
.swatch.seam { background: var(--seam); height: 2px; width: 18px; border-radius: 0 }
span.x.first { left: 0; transform: none } span.x.last { left: auto; right: 0; transform: none }
.scale { font-size: 12px; color: var(--muted); display: flex; gap: 6px;
  align-items: center }
.scale .bar { display: flex; height: 9px; width: 112px; border-radius: 2px; overflow: hidden }
.scale i { flex: 1 }
.hair { top: 0; bottom: 0; width: 0; border-left: 1px solid var(--muted); pointer-events: none }
.readout { position: absolute; top: 8px; margin: 0 10px; padding: 7px 10px; z-index: 2;
  background: var(--paper); border: 1px solid var(--hair); border-radius: 7px; font-size: 12px;
  pointer-events: none; box-shadow: 0 3px 12px #0002; max-width: 75% }
.readout p { display: flex; align-items: center; margin: 0; line-height: 1.55; white-space: nowrap }
.readout span { position: static; flex: 1; line-height: inherit; overflow: hidden;
  text-overflow: ellipsis }
.readout b { margin-left: 16px }
[hidden] { display: none !important }
.wide { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; font-size: 14px; margin-top: 16px }
caption { text-align: left; color: var(--muted); font-size: 13px; padding-bottom: 6px }
th, td { text-align: left; padding: 5px 22px 5px 0; border-bottom: 1px solid var(--hair);
  vertical-align: top; font-weight: 400 }
thead th { color: var(--muted); font-size: 13px; vertical-align: bottom; white-space: nowrap }
tbody th { font-weight: 600 } tbody th:has(.swatch) { min-width: 160px }
.number { text-align: right; padding-left: 12px }
.facts { margin: 0 } .facts th { color: var(--muted); font-weight: 400; white-space: nowrap }
.facts td { overflow-wrap: anywhere; padding-right: 0 }
details { margin-top: 22px } summary { cursor: pointer; font-size: 14px; color: var(--muted) }
@media (max-width: 640px) {
  main { padding: 24px 16px 48px }
  h1 { font-size: 25px }
  .headline { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px }
  .headline div { padding: 12px } .value { font-size: 21px }
  .frame { padding-left: 40px } .frame.labelled { padding-right: 50px }
  .tall .plot { height: 260px }
  th, td { padding-right: 14px }
}
@media print {
  body { font-size: 11px } main { max-width: none; padding: 0 }
  .plot span, .kinds span, .bars span { font-size: 10px }
  .headline { grid-template-columns: repeat(4, 1fr) } .value { font-size: 19px }
  .legend { break-after: avoid } .chart { margin-bottom: 12px }
  .plot { height: 150px } .middle .plot { height: 140px } .three .plot { height: 110px }
  .map > div, .map .plot { height: min(var(--height), 360px) }
  section { margin-top: 24px } h2 { break-after: avoid }
  .headline div, .swatch, .cells, .scale i { print-color-adjust: exact;
    -webkit-print-color-adjust: exact }
  .tall .plot { height: 250px }
  .pair { grid-template-columns: 1fr 1fr } .three { grid-template-columns: 1fr 1fr 1fr }
  tr { break-inside: avoid }
}
"""

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} {_shades(_LIGHT_SHADES)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} {_shades(_DARK_SHADES)} }} }}
{_RULES}
{_LEVEL_RULES}
{_COLOR_RULES}
"""
