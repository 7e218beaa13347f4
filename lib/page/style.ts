/** The page's stylesheet, but for the colours of logs (files.ts). */
export const style = `\
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--text:#1d2126;--soft:#5b6470;--line:#e3e5e8;--link:#1f5f9e;
--accent:#2f6fb3;--on-accent:#fff;--good:#1a7a3d;--bad:#b3261e;--busy:#8a5a00;--idle:#5b6470;--good-bg:#e3f3e8;
--bad-bg:#fbe7e5;--busy-bg:#fdf1d8;--idle-bg:#eceef0;--bar-good:#58ad76;--bar-bad:#d8564c;--bar-idle:#b3bac2;
--bar-busy:#dba32c;--mono:ui-monospace,"SF Mono","Cascadia Mono","DejaVu Sans Mono",Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1a1e22;--text:#dde2e7;--soft:#98a2ad;--line:#2b3138;
--link:#7db6ee;--accent:#7db6ee;--on-accent:#0d1a27;--good:#74cf92;--bad:#f38d84;--busy:#e8bd62;--idle:#98a2ad;
--good-bg:#173023;--bad-bg:#3a1c1a;--busy-bg:#362a10;--idle-bg:#262b31;--bar-good:#3f9a60;--bar-bad:#d4574d;
--bar-idle:#59636e;--bar-busy:#b98a27}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;min-height:100vh;display:flex;
flex-direction:column}
a{color:var(--link);text-decoration:none}
a:hover,.sum a,.now .title a,.why a{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
main:focus{outline:none}
main{flex:1;width:100%;max-width:1400px;margin:0 auto;padding:20px 24px 32px}
footer{display:flex;flex-wrap:wrap;gap:4px 24px;max-width:1400px;width:100%;margin:0 auto;padding:10px 24px 18px;
color:var(--soft);font-size:13px}
.shortcuts[open]{order:9;flex-basis:100%}
.shortcuts summary{cursor:pointer}
.shortcuts dl{display:flex;flex-wrap:wrap;gap:4px 8px;margin:8px 0}
.shortcuts dd{margin:0 14px 0 0}
.shortcuts label{display:inline-flex;align-items:center;gap:8px}
.shortcuts input{min-height:0}
kbd{font:12px var(--mono);border:1px solid var(--line);border-radius:4px;padding:1px 6px;background:var(--card)}
.top{display:flex;justify-content:space-between;align-items:center;gap:16px;padding:9px 24px;background:var(--card);
border-bottom:1px solid var(--line)}
.top nav{display:flex;align-items:center;gap:18px}
.top nav a{color:var(--soft)}
.top nav a[aria-current]{color:var(--text);font-weight:600}
.top .brand{display:flex;align-items:center;gap:8px;color:var(--text);font-weight:650;margin-right:8px}
.mark{fill:var(--accent)}
.who{display:flex;align-items:center;gap:12px;color:var(--soft)}
.who span{max-width:16em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.skip,.away,.stages thead{
position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.skip:focus{position:static;width:auto;height:auto;margin:0;clip-path:none;padding:8px 24px}
h1{font-size:21px;line-height:1.3;margin:0;font-weight:650;overflow-wrap:anywhere}
h2{font-size:16px;margin:0;font-weight:600}
.head{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 16px;margin-bottom:14px}
.head h1{display:flex;align-items:baseline;gap:10px}
.sum,.soft{color:var(--soft)}
.sum{margin:0}
.head .filter{margin-left:auto}
.filter{display:flex;flex-wrap:wrap;align-items:center;gap:12px;margin:0}
main>.filter{margin:0 0 14px}
input,select,button,.button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:5px 10px;min-height:34px}
input[type=search]{width:23em;max-width:100%}
.filter label{min-width:0;max-width:100%}
select{max-width:min(22em,75vw);text-overflow:ellipsis}
::placeholder{color:var(--soft);opacity:1}
button,.button{cursor:pointer;display:inline-flex;align-items:center;line-height:1.4}
button:hover,.button:hover{border-color:var(--soft);text-decoration:none}
button.main{background:var(--accent);border-color:var(--accent);color:var(--on-accent);font-weight:600}
button.danger{background:var(--bad-bg);border-color:var(--bad);color:var(--bad);font-weight:600}
button.quiet{background:none;color:var(--soft);padding:3px 9px;min-height:30px}
button[aria-pressed=true]{color:var(--text);border-color:var(--accent)}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:7px 10px 7px 0;border-bottom:1px solid var(--line);vertical-align:middle;font-weight:400}
thead th{color:var(--soft);font-size:12.5px;padding-top:0;white-space:nowrap}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.num,th.num{padding-right:22px}
time{font-variant-numeric:tabular-nums}
.when,.by{color:var(--soft);white-space:nowrap}
.by{max-width:9em;overflow:hidden;text-overflow:ellipsis}
.repos th[scope=row]{white-space:nowrap;max-width:20em;overflow:hidden;text-overflow:ellipsis}
.repos th[scope=row] a{display:inline-flex;max-width:100%;color:var(--text);font-weight:600}
.repos .owner,.repos .name{overflow:hidden;text-overflow:ellipsis}
.repos .owner{flex:0 100 auto;min-width:2em}
.owner{color:var(--soft);font-weight:400}
.what{width:34%;max-width:0;padding-right:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.what+.by,.repos th:nth-child(4),.runs th:nth-child(3){padding-left:12px}
.ref,.title,.name,.owner,h1 span,.t{unicode-bidi:isolate}
.ref,.sha,.id{font-family:var(--mono);font-size:.88em}
.ref{background:var(--idle-bg);border-radius:4px;padding:1px 6px;overflow-wrap:anywhere;
-webkit-box-decoration-break:clone;box-decoration-break:clone}
.sha,.id{color:var(--soft)}
.runs th{white-space:nowrap}
.runs th .pill{min-width:8em;text-align:center}
.runs th a{display:inline-flex;gap:8px;align-items:baseline}
.runs .why,.stages .why{color:var(--soft);max-width:24em;overflow-wrap:anywhere}
.pill{display:inline-block;border-radius:20px;padding:1px 9px;font-size:12.5px;font-weight:600;white-space:nowrap;
color:var(--idle);background:var(--idle-bg)}
.pill.succeeded,.pill.ok{color:var(--good);background:var(--good-bg)}
.pill.failed,.pill.timeout,.pill.differs,.pill.unreachable{color:var(--bad);background:var(--bad-bg)}
.pill.running,.pill.starting{color:var(--busy);background:var(--busy-bg)}
a:hover>.pill{text-decoration:underline}
.bar{width:210px;padding-right:0}
.bars{display:block}
.base{stroke:var(--line);fill:none}
path.succeeded,rect.ok{fill:var(--bar-good)}
path.failed,rect.failed,rect.timeout{fill:var(--bar-bad)}
path.cancelled,rect.skipped,rect.cancelled{fill:var(--bar-idle)}
rect.running{fill:var(--bar-busy)}
rect.succeeded{fill:var(--bar-good)}
rect.ok+rect.ok{opacity:.78}
rect.ok+rect.ok+rect.ok{opacity:.6}
.cross,.over{fill:none;stroke:var(--bad);stroke-width:1.5}
.over{stroke:var(--soft)}
.day{margin:0 0 12px}
.day svg{display:block;width:100%;height:16px;border-bottom:1px solid var(--line)}
.day path{stroke-width:4;stroke:var(--bar-idle)}
.day .succeeded{stroke:var(--bar-good)}
.day .failed{stroke:var(--bar-bad)}
.since{margin:0 0 12px}
.since summary{cursor:pointer;min-height:24px}
.since ul{list-style:none;margin:4px 0;padding:0 0 0 14px}
.now{margin-bottom:18px;border:1px solid var(--line);border-radius:8px;background:var(--card)}
.now ul,.problems ul{list-style:none;margin:0;padding:0}
.now li{display:flex;align-items:center;gap:10px;padding:7px 12px;border-bottom:1px solid var(--line)}
.now li:last-child{border:0}
.now .pill{min-width:6.2em;text-align:center}
.now .title{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--soft)}
.problems{margin-bottom:16px;padding:8px 12px;border-radius:8px;background:var(--bad-bg);color:var(--bad)}
.problems li{overflow-wrap:anywhere}
.empty{color:var(--soft)}
.plot{margin:0 0 18px;padding:10px 12px 8px;border:1px solid var(--line);border-radius:8px;background:var(--card)}
.plot svg{display:block;width:100%;height:auto;overflow:visible}
.plot text{fill:var(--soft);font-size:11px;font-family:inherit}
.plot .grid{stroke:var(--line)}
.plot a:hover rect{opacity:1}
figcaption{color:var(--soft);font-size:13px}
.pager{display:flex;gap:16px;margin:14px 0 26px}
section>h2+.sum{margin:2px 0 8px}
.more{margin-top:28px}
.release{margin-bottom:28px}
.facts{display:flex;flex-wrap:wrap;gap:6px 26px;margin:0 0 12px}
.facts dt{color:var(--soft);font-size:12.5px}
.facts dd{margin:0;overflow-wrap:anywhere}
.facts .ref{background:none;padding:0}
.reason{margin:0 0 12px;padding:7px 12px;border-radius:6px;background:var(--idle-bg);overflow-wrap:anywhere}
.reason.failed{background:var(--bad-bg);color:var(--bad)}
.bad{color:var(--bad)}
.actions{margin:0 0 14px}
.stages{width:auto;min-width:min(100%,28em);margin-bottom:16px}
.stages th,.stages td{padding:3px 18px 3px 0;border:0}
.stages th{font-weight:500}
.log{border-radius:8px;overflow:hidden;border:1px solid var(--line)}
.logbar{display:flex;flex-wrap:wrap;align-items:center;gap:6px 14px;min-height:51px;padding:8px 12px;
background:var(--card);border-bottom:1px solid var(--line)}
.logbar .raw{margin-left:auto;display:flex;gap:14px}
.tools{display:flex;flex-wrap:wrap;align-items:center;gap:6px;flex:1}
.tools[hidden]{display:none}
.tools input{min-height:30px;width:15em}
.tools output{color:var(--soft);font-size:13px;min-width:4.5em}
.log .pager{margin:0;padding:14px 12px;background:#0f1317}
.log .pager a{color:#7db6ee}
.lines{background:#0f1317;color:#d5dbe1;font:13px/20px var(--mono);overflow:auto;overscroll-behavior:contain;
tab-size:8;padding:8px 0;max-height:max(72vh,240px)}
.lines:focus-visible{outline-offset:-2px}
.lines .empty,.window:empty::before{padding:0 14px;color:#98a2ad}
.window:empty::before{content:"Nothing was printed."}
[data-live=yes] .window:empty::before{content:"Nothing was printed yet."}
.block{content-visibility:auto;min-width:100%;width:max-content}
.row{min-height:20px;white-space:pre;padding-right:16px}
.n{display:inline-block;width:76px;padding-right:14px;text-align:right;color:#87919c;user-select:none}
.n::before{content:attr(data-n)}
.n:hover{color:#d5dbe1;text-decoration:none}
.row.error{background:#3d1d1b;box-shadow:inset 3px 0 #e5534b}
.row.hit{background:#2b2713}
.row.marked,.row:target{background:#3a3312}
.fold{display:flex;gap:12px;align-items:center;min-height:28px;padding:0 14px 0 20px;background:#1a2027;cursor:pointer;
font-weight:600;position:sticky;top:-8px;left:0;z-index:1;max-width:100vw}
.fold::before{content:"▸";width:12px;color:#98a2ad}
details[open]>.fold::before{content:"▾"}
.fold .result,.fold .soft{color:#98a2ad;font-weight:400}
.fold.ok .result{color:#74cf92}
.fold.failed .result,.fold.timeout .result{color:#f38d84}
.fold.running .result{color:#e8bd62}
.x1{font-weight:700}.x2{opacity:.8}.x4{font-style:italic}.x8{text-decoration:underline}.x32{
text-decoration:line-through}.x8.x32{text-decoration:underline line-through}
.signin,.notice{max-width:26em;margin:8vh auto 0;padding:24px;border:1px solid var(--line);border-radius:10px;
background:var(--card)}
.notice{max-width:36em}
.notice>:last-child{margin-bottom:0}
.signin form{display:flex;flex-direction:column;gap:8px;margin-top:14px}
.signin button{margin-top:8px;justify-content:center}
.problem{color:var(--bad);margin:0}
.drift td,.drift th{background:var(--bad-bg)}
.drift .pill{background:var(--card)}
.fleet th:first-child{padding-left:10px}
.sum+.fleet{margin-top:14px}
@media (max-width:820px){
main,footer{padding-left:14px;padding-right:14px}
.top{padding:9px 14px}
.top nav{gap:12px}
.head .filter{margin-left:0;width:100%}
.head input[type=search]{width:100%}
.head .filter label{flex:1}
.repos thead,.runs thead{display:none}
.repos tr,.runs tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:9px 0;
border-bottom:1px solid var(--line)}
.repos tr[hidden]{display:none}
.repos tr{grid-template-columns:auto 1fr auto}
.repos th[scope=row]{grid-column:1/3}
.repos th,.repos td,.runs th,.runs td{border:0;padding:0;max-width:none}
.repos .what,.runs .what{grid-column:1/-1;width:auto;max-width:100%}
.repos .state{text-align:right}
.what+.by{padding:0}
.runs .by{grid-column:1}
.runs .num{grid-column:2;padding:0}
.repos .num{padding:0}
.repos .by:empty+.when{grid-column:1/3}
.repos .none .bar{display:none}
.repos .bar{grid-column:1/-1;width:auto;overflow:hidden;margin-top:4px}
.runs .when{text-align:right;grid-column:2;grid-row:1}
.runs .why{grid-column:1/-1}
.runs .why:empty,.repos .by:empty,.runs .by:empty{display:none}
.now li{flex-wrap:wrap}
.now .title{flex-basis:100%;order:9}
.now .title:empty{display:none}
.now .clock{margin-left:auto}
.n{width:48px;padding-right:8px}
.block{width:auto}
.row{display:flex;white-space:pre-wrap;overflow-wrap:anywhere;padding-right:8px}
.t{min-width:0}
.n{flex:none}
.lines{font-size:12px}
.tools input{width:100%}
.plot figcaption{font-size:12px}
.logbar .raw{order:1}
.logbar .tools{order:2;flex-basis:100%}
.tools output{min-width:0}
.tools output:empty{display:none}
.fleet thead{display:none}
.fleet tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:9px 10px;border-bottom:1px solid var(--line)}
.fleet tr.drift{background:var(--bad-bg)}
.fleet th,.fleet td,.fleet th:first-child{border:0;padding:0}
.fleet .repo{grid-row:2;grid-column:1}
.fleet .state{grid-row:1;grid-column:2;text-align:right}
.fleet .when{grid-column:2;text-align:right}
.fleet .serves{grid-column:1}
.fleet .when::before,.fleet .wanted::before{content:attr(data-is) " ";color:var(--soft);
font-family:system-ui,sans-serif}
.fleet .why{grid-column:1/-1}
.fleet td:empty{display:none}
}
@media (max-width:480px){
.top .brand{margin-right:0}
.plot text{font-size:30px}
.top{flex-wrap:wrap;gap:4px 12px}
.top nav{flex-wrap:wrap}
.who{margin-left:auto;min-width:0}
}
@media (forced-colors:active){
.row.marked,button[aria-pressed=true]{forced-color-adjust:none;background:Highlight;color:HighlightText}
.row.marked .n{color:HighlightText}
.row.hit{outline:1px solid Highlight;outline-offset:-1px}
}
@media (prefers-reduced-motion:reduce){*{scroll-behavior:auto!important;transition:none!important}}
`;
