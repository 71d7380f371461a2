"""The style sheet of every page, for light and dark themes and all widths, without external fonts or images."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --line: #d9dee4; --paper: #fbfbfa; --card: #fff;
  --good: #15803d; --bad: #b91c1c; --caution: #a16207; --s0: #0b62c4; --s1: #c2410c; --s2: #15803d; --s3: #7c3aed;
  --s4: #a16207; --s5: #0e7490; --s6: #be185d; --s7: #4d7c0f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #30363d; --paper: #101316;
  --card: #171b20; --good: #4ade80; --bad: #f87171; --caution: #facc15; --s0: #6cb0ff; --s1: #fb923c; --s2: #4ade80;
  --s3: #c4a5ff; --s4: #facc15; --s5: #22d3ee; --s6: #f472b6; --s7: #a3e635; } }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.s4 { --c: var(--s4); } .s5 { --c: var(--s5); } .s6 { --c: var(--s6); } .s7 { --c: var(--s7); }
.good { --c: var(--good); } .bad { --c: var(--bad); } .caution { --c: var(--caution); }
.soft { --c: var(--soft); } .noise { --c: var(--line); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 ui-sans-serif, system-ui, -apple-system,
  "Segoe UI", "Noto Sans", "DejaVu Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
.tool { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: .1rem 0 1.1rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 .3rem; font-size: 1.12rem; } h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
section { margin-top: 2.6rem; } section > p { margin: 0 0 .8rem; color: var(--soft); }
.banner { margin: 0 0 .8rem; padding: .9rem 1.2rem; border: 1px solid var(--c); border-left-width: .45rem;
  border-radius: .6rem; background: color-mix(in srgb, var(--c) 9%, var(--card)); overflow-wrap: anywhere; }
.banner strong { color: var(--c); font-size: 1.25rem; letter-spacing: .02em; } .banner p { margin: .2rem 0 0; }
.subtitle { color: var(--soft); font-size: .9rem; text-wrap: pretty; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .7rem; margin: 1.2rem 0 0; }
.cards div { padding: .6rem .85rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
dt { color: var(--soft); font-size: .76rem; } dd { margin: .1rem 0 0; font-size: 1.18rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1rem; padding: .8rem .9rem .5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.narrow { width: fit-content; max-width: 100%; }
.wide { overflow-x: auto; } svg { display: block; width: 100%; min-width: 52rem; height: auto; }
svg text { font-size: 12px; fill: var(--soft); } svg .note { fill: var(--bad);
  stroke: var(--card); stroke-width: 3px; paint-order: stroke; } svg .axis { font-weight: 600; }
.grid { stroke: var(--line); } .limit { stroke: var(--bad); stroke-dasharray: 6 4; }
.mark { stroke: var(--ink); fill: none; } .line { fill: none; stroke: var(--c); stroke-width: 1.6;
  stroke-linejoin: round; stroke-linecap: round; }
.bar { fill: var(--c); } .dot { fill: var(--c); stroke: var(--card); } .key { background: var(--c); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .3rem 0 .2rem; padding: 0; list-style: none;
  font-size: .84rem; }
.key { display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; border-radius: .2rem; }
.round { border-radius: 50%; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: right; white-space: pre; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; line-height: 1.3; vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 0; }
.word { text-align: left; }
td.word:last-child { white-space: normal; min-width: 14rem; }
tr.bad td, tr.worse td:last-child { color: var(--bad); font-weight: 600; }
tr.better td:last-child { color: var(--good); font-weight: 600; }
.remarks { margin: .3rem 0 0; padding-left: 1.1rem; }
@media (max-width: 48rem) { main { padding: 1.5rem .9rem 3rem; } h1 { font-size: 1.3rem; } }
"""
