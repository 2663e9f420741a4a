"""How every page looks: light and dark screens, narrow ones, and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c1e21; --faint: #5a6169; --line: #d8dce0; --band: #f4f6f8; --link: #0b5cad;
  --bar: #0072b2; --warn-paper: #fff3cd; --warn-ink: #6b2a00; --warn-line: #c2570c; --deep: 60%;
  --s1: #0072b2; --s2: #c24e00; --s3: #00795a; --s4: #9a3f7d; --s5: #7a5c00; --s6: #5a6169;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e6e8ea; --faint: #a3abb3; --line: #3a4047; --band: #1e2327; --link: #7fb9f2;
    --bar: #56b4e9; --warn-paper: #3a2a0a; --warn-ink: #ffd9a3; --warn-line: #e08a2e; --deep: 42%;
    --s1: #56b4e9; --s2: #ff9e5e; --s3: #4cd0a8; --s4: #e6a1c8; --s5: #e5d94e; --s6: #c0c6cc;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h2, h3, p, li, figcaption, caption { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; }
.long { overflow-wrap: anywhere; min-width: 10rem; }
.prose { min-width: 15rem; }
th.prose { min-width: 8.5rem; }
p { max-width: 46rem; margin: .75rem 0; }
a { color: var(--link); }
.notes { background: var(--warn-paper); color: var(--warn-ink); border: 1px solid var(--warn-line);
  border-left-width: .4rem; border-radius: .3rem; padding: .75rem 1rem; margin: 0 0 1.5rem; }
.notes ul { margin: .25rem 0 0; padding-left: 1.2rem; }
nav { font-size: .9rem; margin-bottom: 1.5rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0; padding: 0; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .2rem; }
figure img.sharp { image-rendering: pixelated; }
figcaption { color: var(--faint); font-size: .875rem; margin-top: .4rem; max-width: 46rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.beside > * { min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9375rem; }
caption { text-align: left; color: var(--faint); font-size: .875rem; padding-bottom: .35rem; }
th, td { padding: .35rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; }
tbody th small { display: block; font-weight: 400; font-size: .875rem; color: var(--faint); max-width: 34rem; }
thead th.number { text-align: right; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bars { width: 12rem; vertical-align: middle; }
.bar { display: block; height: .6rem; background: var(--band); border: 1px solid var(--line); border-radius: .3rem; }
.bar > span { display: block; height: 100%; background: var(--bar); border-radius: .3rem; }
pre { background: var(--band); border: 1px solid var(--line); border-radius: .3rem; padding: .75rem 1rem;
  overflow-x: auto; font-size: .875rem; }
table.matrix td { text-align: center; min-width: 5.5rem; border: 2px solid var(--paper);
  background: color-mix(in srgb, var(--bar) calc(var(--share, 0) * var(--deep)), var(--band)); }
table.matrix small { display: block; }
table.matrix .long { min-width: 7rem; max-width: 12rem; }
.scores { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(10.5rem, 100%), 1fr));
  gap: .75rem; margin: 1.25rem 0; }
.score { border: 1px solid var(--line); border-radius: .5rem; padding: .85rem 1rem 1rem; background: var(--band);
  display: flex; flex-direction: column; min-width: 0; overflow-wrap: anywhere; }
.score .name { font-weight: 600; font-size: .9rem; }
.score .value { font-size: 2rem; line-height: 1.15; font-variant-numeric: tabular-nums; }
.score:first-child .value { font-size: 2.75rem; font-weight: 600; }
.score .interval, .score .about { color: var(--faint); font-size: .875rem; font-variant-numeric: tabular-nums; }
.score .about { margin-top: .5rem; }
.range { position: relative; display: block; height: .5rem; margin-top: .5rem; border-radius: .25rem;
  background: var(--line); }
.range span { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: .25rem; background: var(--bar);
  opacity: .55; }
.range b { position: absolute; top: -.2rem; bottom: -.2rem; width: 3px; margin-left: -1.5px; background: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; }
.chart { max-width: 31rem; }
.chart > svg { display: block; width: 100%; height: auto; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.chart path { stroke-width: 1; }
.chart path:not(.band) { fill: none; }
.chart path.grid { stroke: var(--line); stroke-width: .6; }
.chart path.axis { stroke: var(--faint); }
.chart path.guide { stroke: var(--faint); stroke-dasharray: 3 4; }
.chart path.line { stroke-width: 2; stroke-linejoin: round; }
.chart circle { stroke: var(--paper); stroke-width: .75; }
path.line.s1 { stroke: var(--s1); } circle.s1 { fill: var(--s1); }
path.line.s2 { stroke: var(--s2); stroke-dasharray: 7 4; } circle.s2 { fill: var(--s2); }
path.line.s3 { stroke: var(--s3); stroke-dasharray: 2 3; } circle.s3 { fill: var(--s3); }
path.line.s4 { stroke: var(--s4); stroke-dasharray: 9 3 2 3; } circle.s4 { fill: var(--s4); }
path.line.s5 { stroke: var(--s5); stroke-dasharray: 12 4; } circle.s5 { fill: var(--s5); }
path.line.s6 { stroke: var(--s6); stroke-dasharray: 1 4; } circle.s6 { fill: var(--s6); }
.chart path.band { stroke: none; opacity: .18; }
path.band.s1 { fill: var(--s1); } path.band.s2 { fill: var(--s2); } path.band.s3 { fill: var(--s3); }
path.band.s4 { fill: var(--s4); } path.band.s5 { fill: var(--s5); } path.band.s6 { fill: var(--s6); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; margin: .25rem 0 0; padding: 0;
  font-size: .875rem; }
.legend li { display: flex; align-items: baseline; overflow-wrap: anywhere; min-width: 0; }
.legend .swatch { width: 28px; height: 12px; margin-right: .4rem; flex: none; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; background: var(--band); margin: 0;
  min-width: 0; overflow-wrap: anywhere; }
.card .pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.card img { width: 100%; height: auto; border-radius: .25rem; background: #fff; }
.card figcaption { color: var(--ink); }
.card figcaption small { display: block; color: var(--faint); }
.framed img { background: #fff; padding: .5rem; border: 1px solid var(--line); border-radius: .5rem; }
pre.columns { columns: 17rem auto; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem 3rem; color: var(--faint); font-size: .875rem;
  border-top: 1px solid var(--line); }
@media (max-width: 480px) {
  th, td { padding: .3rem .45rem; }
  main { padding: 1.25rem 1rem 3rem; }
}
@media print {
  :root { --paper: #ffffff; --ink: #000000; --faint: #444444; --line: #999999; --band: #eeeeee; --link: #000000;
    --bar: #0072b2; --warn-paper: #fff3cd; --warn-ink: #6b2a00; --warn-line: #c2570c; color-scheme: light;
    --s1: #0072b2; --s2: #c24e00; --s3: #00795a; --s4: #9a3f7d; --s5: #7a5c00; --s6: #5a6169; --deep: 60%; }
  :root { font-size: 10pt; }
  th, td { padding: .25rem .45rem; }
  .wide { overflow: visible; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, tr, .notes, .scores, .matrix { break-inside: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .gallery { grid-template-columns: repeat(3, 1fr); }
  h2, h3 { break-after: avoid; }
  .notes, .bar, .bar > span, .range, .range *, .matrix td {
    print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
