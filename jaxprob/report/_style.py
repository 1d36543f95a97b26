"""Style sheet of the page: a phone, a desk, paper, light and dark."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1c1f24; --soft: #5b6470; --line: #d9dee4;
  --tint: #f5f7f9; --blue: #0072b2; --vermilion: #d55e00; --green: #009e73; }
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --ink: #e4e7eb; --soft: #a3abb5; --line: #343b44;
  --tint: #1c2026; --blue: #4aa8e0; --vermilion: #f08a4b; --green: #3cc79d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
a { color: var(--blue); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .4rem 0;
  padding: 0; list-style: none; font-size: .9rem; }
.table { overflow-x: auto; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; }
.note, figcaption, footer { color: var(--soft); font-size: .85rem; }
.pictures { display: grid; gap: 1.2rem 2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 36rem; }
figure svg { display: block; width: 100%; height: auto; fill: currentColor;
  font-family: "DejaVu Sans", Verdana, sans-serif; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-top: .3rem; }
footer { margin-top: 2.5rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .table { overflow: visible; }
  th, td { white-space: normal; } }
"""
