"""The page's style sheet: one for phones and desktops, light and dark."""

from typing import Final

CHART_STYLE: Final = """
:root{--ink:#1d2430;--soft:#5b6675;--rule:#d9dee5;--paper:#ffffff;--panel:#f6f7f9;--good:#1d7a46;--bad:#b3261e;
--c0:#1f6fb4;--c1:#c4590f;--c2:#2c8a4b;--c3:#a8326f;--c4:#6a4bc4;--c5:#967000;--c6:#12808a;--c7:#a33b3b;
--prefill:#8c95a3;--pass:#c9a227;--both:#2c8a4b;--draft:#1f6fb4;--link:#b8527f;--other:#c3c9d2}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#a3aebc;--rule:#39424f;--paper:#14181e;--panel:#1d232b;
--good:#62d394;--bad:#ff8a80;--c0:#6db3f2;--c1:#f6a15a;--c2:#6fd08c;--c3:#f08dbd;--c4:#b59df5;--c5:#e3c04f;
--c6:#5fd0d8;--c7:#f29b9b;--prefill:#7d8897;--pass:#d9b540;--both:#57b877;--draft:#5b9fdc;--link:#d67ba4;--other:#4a5462}}
.chart{display:block;width:100%;max-width:30rem;height:auto;font:11px system-ui,sans-serif;color:var(--ink)}
.chart text{fill:currentColor}.chart .tick,.chart .label{fill:var(--soft)}.chart .grid{stroke:var(--rule);fill:none}
.chart .even{stroke-dasharray:3 3;stroke:var(--soft)}
.chart .line{stroke:currentColor;fill:none;stroke-width:1.8}.chart .dot{fill:currentColor}.chart .name{font-weight:600}
.chart .own{fill:currentColor}.chart .faint .dot{fill:var(--soft);opacity:.45}
.chart .thin{opacity:.45}.chart .over .dot,.chart .ring .dot{fill:none;stroke:var(--bad);opacity:.7}
.chart .ring .dot{stroke:currentColor;stroke-width:1.5}.chart .way .line{stroke:var(--soft);stroke-width:1}
.chart .paper{fill:var(--paper)}
.s0{color:var(--c0)}.s1{color:var(--c1)}.s2{color:var(--c2)}.s3{color:var(--c3)}.s4{color:var(--c4)}.s5{color:var(--c5)}
.s6{color:var(--c6)}.s7{color:var(--c7)}
.p-prefill{fill:var(--prefill);background:var(--prefill)}.p-pass{fill:var(--pass);background:var(--pass)}
.p-pass-and-draft{fill:var(--both);background:var(--both)}.p-draft{fill:var(--draft);background:var(--draft)}
.p-link{fill:var(--link);background:var(--link)}.p-other{fill:var(--other);background:var(--other)}
.p-queue{fill:var(--prefill);background:var(--prefill)}
"""

PAGE_STYLE: Final = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;font:15px/1.5 system-ui,sans-serif;
color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem;line-height:1.25;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2rem 0 .4rem}h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.3rem 0;max-width:46rem;overflow-wrap:anywhere}.soft{color:var(--soft);font-size:.875rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1rem}
.panel{background:var(--panel);border-radius:.5rem;padding:.8rem;min-width:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem}tbody tr{border-top:1px solid var(--rule)}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap}td.word{text-align:left}
th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal;min-width:4.8rem}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;overflow-wrap:anywhere;
min-width:8.5rem;position:sticky;left:0;background:var(--paper)}
.who{display:flex}.who b{min-width:1.5rem}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin:0 .35rem 0 0;vertical-align:-.05rem}
.keys span{display:inline-block;margin-right:.9rem}
.best{font-weight:700}.good{color:var(--good)}.bad{color:var(--bad)}
.warn{border-left:.25rem solid var(--bad);padding-left:.6rem}
ul,ol{margin:.3rem 0;padding-left:1.2rem}ol{padding-left:1.8rem;font-size:.875rem}
li{overflow-wrap:anywhere}summary{cursor:pointer;padding:.3rem 0}
@media (min-width:60rem){body{padding:2rem}th:first-child,td:first-child{min-width:11rem}}
"""
