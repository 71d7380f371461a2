"""The style sheet of the page: light and dark, no font or picture from elsewhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --line: #d9dee4; --paper: #fbfbfa; --card: #fff;
  --good: #15803d; --bad: #b91c1c; --s0: #0b62c4; --s1: #c2410c; --s2: #15803d; --s3: #7c3aed; --s4: #a16207;
  --s5: #0e7490; --s6: #be185d; --s7: #4d7c0f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #30363d; --paper: #101316;
  --card: #171b20; --good: #4ade80; --bad: #f87171; --s0: #6cb0ff; --s1: #fb923c; --s2: #4ade80; --s3: #c4a5ff;
  --s4: #facc15; --s5: #22d3ee; --s6: #f472b6; --s7: #a3e635; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
.tool { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: .1rem 0 1.1rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 .3rem; font-size: 1.12rem; } h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
section { margin-top: 2.6rem; } section > p { margin: 0 0 .8rem; color: var(--soft); }
.verdict { padding: .9rem 1.2rem; border-radius: .6rem; border: 1px solid; border-left-width: .45rem; }
.verdict strong { font-size: 1.25rem; letter-spacing: .02em; } .verdict p { margin: .2rem 0 0; }
.passed { border-color: var(--good); background: color-mix(in srgb, var(--good) 9%, var(--card)); }
.failed { border-color: var(--bad); background: color-mix(in srgb, var(--bad) 9%, var(--card)); }
.passed strong { color: var(--good); } .failed strong { color: var(--bad); }
.sides { color: var(--soft); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .7rem; margin: 1.2rem 0 0; }
.cards div { padding: .6rem .85rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
dt { color: var(--soft); font-size: .76rem; } dd { margin: .1rem 0 0; font-size: 1.18rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1rem; padding: .8rem .9rem .5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
svg .power { font-size: 9px; } svg .axis { fill: var(--soft); } svg .note { fill: var(--bad); }
.grid { stroke: var(--line); } .limit { stroke: var(--bad); stroke-dasharray: 6 4; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .bar { fill: var(--s0); }
.dot { stroke: var(--card); stroke-width: 1; } .dot.bad { fill: var(--bad); }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); }
.line.s3 { stroke: var(--s3); } .line.s4 { stroke: var(--s4); } .line.s5 { stroke: var(--s5); }
.line.s6 { stroke: var(--s6); } .line.s7 { stroke: var(--s7); }
.dot.s0, .k0 { fill: var(--s0); background: var(--s0); } .dot.s1, .k1 { fill: var(--s1); background: var(--s1); }
.dot.s2, .k2 { fill: var(--s2); background: var(--s2); } .dot.s3, .k3 { fill: var(--s3); background: var(--s3); }
.dot.s4, .k4 { fill: var(--s4); background: var(--s4); } .dot.s5, .k5 { fill: var(--s5); background: var(--s5); }
.dot.s6, .k6 { fill: var(--s6); background: var(--s6); } .dot.s7, .k7 { fill: var(--s7); background: var(--s7); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .3rem 0 .2rem; padding: 0; list-style: none;
  font-size: .84rem; }
.key { display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; border-radius: .2rem; }
.round { border-radius: 50%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; } th, td { padding: .28rem .75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); } th:first-child, td:first-child { padding-left: 0; }
.word { text-align: left; }
@media (max-width: 640px) { svg text { font-size: 22px; } svg .power { font-size: 16px; } h1 { font-size: 1.3rem; } }
tr.bad td { color: var(--bad); font-weight: 600; } .remarks { margin: .3rem 0 0; padding-left: 1.1rem; }
"""
