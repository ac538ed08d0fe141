-- SPDX-License-Identifier: MIT
--- How a report looks, by day and by night.
return [[

:root{--bg:#f7f5f1;--card:#fff;--ink:#1f1e1b;--soft:#6f6b64;--line:#e6e1d8;--track:#f1eee8;
--accent:#2f6bd8;--bad:#d2402f;--warn:#d98a16;--open:#9a958c;
--f1:#3d78e0;--f2:#12a594;--f3:#8a63d2;--f4:#d9822b;--f5:#c2468f;--f6:#6d9b1e;--f0:#9c978d;
--p2:#e9b949;--p3:#b48ead;--p4:#d9822b;--p5:#12a594;--p6:#c2468f;--p7:#cfc9be;--p8:#e2ddd3;
--p9:#efece6;--shadow:0 1px 2px rgba(60,50,30,.05),0 6px 24px rgba(60,50,30,.05)}
@media(prefers-color-scheme:dark){:root{--bg:#131519;--card:#1b1e24;--ink:#e8e6e1;--soft:#9a9994;
--line:#2c3038;--track:#23272f;--accent:#7aa7ff;--bad:#f0705f;--warn:#eaa845;--open:#7d7f85;
--f1:#6f9ef5;--f2:#3cc4b3;--f3:#a98bea;--f4:#eba25a;--f5:#e077b5;--f6:#9cc653;--f0:#7d7f85;
--p2:#d8a93a;--p3:#a385b8;--p4:#d98a4a;--p5:#35ab9c;--p6:#c7629f;--p7:#474c56;--p8:#363a43;
--p9:#2a2e36;--shadow:none}}
*{box-sizing:border-box}
html{background:var(--bg);color:var(--ink);-webkit-text-size-adjust:100%}
body{margin:0;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
"Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:36px 24px 64px}
header{margin-bottom:20px}
h1{font:600 21px/1.35 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;
margin:2px 0 6px;overflow-wrap:anywhere}
h2{font-size:15px;font-weight:650;margin:0 0 4px;letter-spacing:.005em}
p{margin:0}
.kicker{font-size:11.5px;font-weight:650;letter-spacing:.09em;text-transform:uppercase;
color:var(--accent)}
.note{color:var(--soft);font-size:13.5px}
section,.verdict{background:var(--card);border:1px solid var(--line);border-radius:12px;
padding:18px 20px;margin-top:16px;box-shadow:var(--shadow)}
section>.note{margin-bottom:12px}
.verdict{border-left:4px solid var(--accent);padding:20px 24px}
.verdict p:nth-child(2){font-size:20px;line-height:1.4;font-weight:600;margin:4px 0 6px;
text-wrap:balance;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(112px,1fr));gap:1px;
margin-top:16px;background:var(--line);border:1px solid var(--line);border-radius:12px;
overflow:hidden;box-shadow:var(--shadow)}
.tile{background:var(--card);padding:14px 16px}
.tile b{display:block;font-size:20px;font-weight:650;line-height:1.25;white-space:nowrap}
.tile span{color:var(--soft);font-size:12.5px}
.tile.bad b{color:var(--bad)}
.bar{display:flex;height:28px;border-radius:7px;overflow:hidden;background:var(--track);gap:1px}
.bar i{display:block;min-width:2px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:12px 0 0;padding:0;
font-size:13px;color:var(--soft)}
.legend b{color:var(--ink);font-weight:600}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px;
vertical-align:-1px}
.legend li{overflow-wrap:anywhere}
.p1{background:var(--f1)}.p2{background:var(--p2)}.p3{background:var(--p3)}.p4{background:var(--p4)}
.p5{background:var(--p5)}.p6{background:var(--p6)}.p7{background:var(--p7)}.p8{background:var(--p8)}
.p9{background:var(--p9)}
i.f0{background:var(--f0)}i.f1{background:var(--f1)}i.f2{background:var(--f2)}
i.f3{background:var(--f3)}i.f4{background:var(--f4)}i.f5{background:var(--f5)}
i.f6{background:var(--f6)}i.bad{background:var(--bad)}i.warn{background:var(--warn)}
i.open{background:var(--open);opacity:.6}
.scroll{overflow-x:auto;margin:0 -4px;padding:0 4px}
svg{display:block;width:100%;min-width:640px;height:auto;
font-family:inherit}
svg text{font-size:12px;fill:var(--soft)}
svg .host{fill:var(--ink);font-weight:600}
svg .small{font-size:8.5px}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .tick{font-size:11px}
svg .queued{fill:var(--warn)}
svg .marked{fill:var(--ink);font-weight:600}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1;opacity:.55}
.mark{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:3 3}
.track{fill:var(--track)}
.f0{fill:var(--f0)}.f1{fill:var(--f1)}.f2{fill:var(--f2)}.f3{fill:var(--f3)}.f4{fill:var(--f4)}
.f5{fill:var(--f5)}.f6{fill:var(--f6)}
svg .bad{fill:var(--bad)}svg .warn{fill:var(--warn)}svg .open{fill:var(--open);opacity:.6}
svg rect[rx]:hover{filter:brightness(1.15)}
.s1{opacity:.16}.s2{opacity:.28}.s3{opacity:.4}.s4{opacity:.52}.s5{opacity:.64}.s6{opacity:.76}
.s7{opacity:.88}
.area{fill:var(--f1);opacity:.75}
.queue{fill:none;stroke:var(--warn);stroke-width:1.6}
table{border-collapse:collapse;width:100%;font-size:13.5px;margin-top:6px}
th{text-align:left;color:var(--soft);font-weight:550;font-size:12.5px;
border-bottom:1px solid var(--line);padding:6px 10px 6px 0;white-space:nowrap}
td{padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:baseline;
overflow-wrap:anywhere}
tbody tr:last-child td{border-bottom:0}
.n{text-align:right;white-space:nowrap}
th.n:not(:first-child),td.n:not(:first-child){padding-left:10px}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;
font-size:12.5px}
pre{margin:6px 0 0;white-space:pre}
.soft{color:var(--soft);font-size:12.5px}
.chip{display:inline-block;font-size:11.5px;font-weight:600;line-height:1.6;padding:0 8px;
border-radius:99px;white-space:nowrap;color:var(--card);background:var(--open)}
.chip.bad{background:var(--bad)}.chip.warn{background:var(--warn)}
@media(max-width:640px){main{padding:20px 12px 40px}section{padding:14px}.verdict{padding:16px}}
@media print{html{background:#fff}section,.verdict{break-inside:avoid;box-shadow:none}}
]]
