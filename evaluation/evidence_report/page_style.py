"""The style sheet of a report's page: light and dark, desktop, phone and paper; no font or picture from elsewhere."""

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #4a5058; --line: #c9ced4; --card: #f4f6f8;
  --good: #0b6b3a; --bad: #a11a1a; --mark: #0b4f9e; --bar: #77808c; --bar2: #0b4f9e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #b6bcc4; --line: #3c434b;
  --card: #1e2328; --good: #6fd39b; --bad: #ff9a94; --mark: #8ab8ff; --bar: #76808d; --bar2: #8ab8ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; overflow-wrap: break-word; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 58rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 44rem; }
a { color: var(--mark); }
a:focus-visible, pre:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
.skip { position: absolute; left: -60rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem; }
.soft, figcaption, small { color: var(--soft); font-size: .9rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1.1rem; margin: 1rem 0; }
.card ul, ol, ul { padding-left: 1.3rem; margin: .4rem 0; } li { margin: .3rem 0; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
blockquote { margin: .8rem 0; padding: .6rem 1rem; border-left: 4px solid var(--mark); background: var(--card);
  white-space: pre-wrap; overflow-wrap: anywhere; }
nav ol { columns: 2; column-gap: 2rem; } nav li { break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .95rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0 .4rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { font-weight: 600; overflow-wrap: break-word; } td time { overflow-wrap: normal; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
ol.line { list-style: none; padding: 0; border-left: 3px solid var(--line); margin-left: .4rem; }
ol.line > li { padding: 0 0 1rem 1.1rem; position: relative; max-width: none; }
ol.line > li::before { content: ""; position: absolute; left: -.55rem; top: .45rem; width: .8rem; height: .8rem;
  border-radius: 50%; background: var(--paper); border: 3px solid var(--bar); }
ol.line > li.key::before { border-color: var(--mark); background: var(--mark); }
.bars { display: grid; grid-template-columns: 4.2rem 1fr; gap: .2rem .6rem; align-items: center; max-width: 34rem; margin: .3rem 0; }
.bars .track { position: relative; height: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .2rem; }
.bars .fill { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: .1rem; }
.bars .fill.after { background: var(--bar2); }
.bars .range { position: absolute; top: 42%; height: 16%; min-width: 2px; background: var(--ink); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
.pairs > li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; margin: 0; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; border-radius: .25rem; background: #ffffff; }
.pair img { image-rendering: pixelated; aspect-ratio: 1; object-fit: contain; }
.map img { max-width: 100%; padding: .5rem; border: 1px solid var(--line); }
code, pre, .digest { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .85rem; }
.digest, code { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem; margin: .5rem 0;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-bottom: 2rem; border-top: 2px solid var(--line); }
@media (max-width: 40rem) {
  h1 { font-size: 1.5rem; } nav ol { columns: 1; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; }
  table.stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.stack, table.stack tbody, table.stack tr, table.stack td, table.stack th { display: block; }
  table.stack tr { border-bottom: 2px solid var(--line); padding: .5rem 0; }
  table.stack td, table.stack th { border: 0; padding: .1rem 0; }
  td.number { white-space: normal; }
  table.stack caption { display: block; }
  table.stack td::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print {
  :root { --paper: #ffffff; --ink: #000000; --soft: #333333; --line: #999999; --card: #ffffff; --good: #004d26;
    --bad: #7a0000; --mark: #003070; --bar: #777777; --bar2: #003070; }
  body { font-size: 10.5pt; } header, main, footer { max-width: none; padding: 0; }
  nav, .skip { display: none; } h2, h3 { break-after: avoid; } li, tr, table, figure, .card, .bars, pre { break-inside: avoid; }
  .fill, .range, .track { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  @page { size: A4; margin: 18mm 16mm; }
}
"""
