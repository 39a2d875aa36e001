"""Style sheet and script of the page: sober, light and dark, nothing fetched from anywhere."""

STYLE = """
:root{--ground:#f7f7f5;--paper:#fff;--ink:#1c1e21;--soft:#62676e;--rule:#e3e3df;--recording:#5b6b80;
--resynthesis:#0f8a7e;--generated:#c2571a;--wrong:#b3261e;--wrongback:#fbe9e7;--shade:#eeeeea}
@media (prefers-color-scheme:dark){:root{--ground:#15171a;--paper:#1d2024;--ink:#e6e6e3;--soft:#9aa0a8;
--rule:#30343a;--recording:#9db0c9;--resynthesis:#4cc3b5;--generated:#f0935a;--wrong:#ff8a80;
--wrongback:#3a2220;--shade:#272b30}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,nav div{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:21px;margin:52px 0 4px;letter-spacing:-.01em}
h3{font-size:15px;margin:26px 0 8px}
p.note,.soft{color:var(--soft)}
p.note{margin:0 0 16px;max-width:78ch}
nav{position:sticky;top:0;background:var(--ground);
border-bottom:1px solid var(--rule);margin-top:18px;z-index:2}
nav div{display:flex;flex-wrap:wrap;gap:4px 20px;padding-top:9px;padding-bottom:9px;font-size:14px}
nav a{color:var(--soft);text-decoration:none;white-space:nowrap}
nav a:hover{color:var(--ink)}
.legend{display:flex;gap:18px;flex-wrap:wrap;font-size:13px;color:var(--soft);margin:4px 0 12px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px;vertical-align:-1px}
.recording{--tone:var(--recording)}.resynthesis{--tone:var(--resynthesis)}.generated{--tone:var(--generated)}
.legend i{background:var(--tone)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:14px;margin:22px 0 8px}
.card,.item{background:var(--paper);border:1px solid var(--rule);border-radius:8px}
.card{padding:14px 16px 12px}
.card h3{margin:0 0 8px;font-size:13px;font-weight:600;color:var(--soft)}
.card .row{display:grid;grid-template-columns:84px 1fr 62px;align-items:center;gap:8px;font-size:13px;
margin:4px 0}
.card .track{height:7px;border-radius:4px;background:var(--shade);overflow:hidden}
.card .track b{display:block;height:100%;border-radius:4px;background:var(--tone)}
.card .value{text-align:right;font-variant-numeric:tabular-nums;font-weight:600}
.card .big{font-size:26px;font-weight:600;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.card .foot{font-size:12px;color:var(--soft);margin-top:6px}
.item{padding:16px 18px;margin:14px 0}
.item .text{font-size:17px;margin:0 0 10px}
.item .who{font-size:12px;font-weight:600;letter-spacing:.04em;color:var(--soft);margin-bottom:2px}
.versions{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:18px}
.version h4{margin:0 0 5px;font-size:12px;font-weight:600;color:var(--tone)}
.player{display:flex;align-items:center;gap:9px}
.player button{flex:none;width:32px;height:32px;border-radius:50%;border:0;background:var(--tone);
cursor:pointer;display:grid;place-items:center;padding:0}
.player button:focus-visible{outline:2px solid var(--ink);outline-offset:2px}
.player button svg{width:12px;height:12px;fill:var(--paper)}
.player .pause,.player.on .play{display:none}.player.on .pause{display:block}
.wave{position:relative;flex:1;height:34px;cursor:pointer;min-width:40px}
.wave svg{position:absolute;inset:0;width:100%;height:100%}
.wave path{stroke:var(--rule);stroke-width:.62;fill:none;filter:brightness(.86)}
.wave .done path{stroke:var(--tone);filter:none}
.wave .done{clip-path:inset(0 calc(100% - var(--at,100%)) 0 0)}
.player time{flex:none;font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums;width:42px;
text-align:right}
.version img{width:100%;height:76px;display:block;border-radius:4px;margin:7px 0 6px;object-fit:fill}
.heard{font-size:13.5px;margin:4px 0;min-height:1.5em}
.heard s{color:var(--wrong);opacity:.85}.heard u{background:var(--wrongback);color:var(--wrong);
text-decoration:none;border-radius:3px;padding:0 3px}
.chips{display:flex;flex-wrap:wrap;gap:4px;font-size:11.5px}
.chips span{background:var(--shade);border-radius:4px;padding:1px 5px;font-variant-numeric:tabular-nums}
.chips .bad{background:var(--wrongback);color:var(--wrong)}
.turn{border-top:1px solid var(--rule);padding:11px 0 12px}
.turn .text{font-size:15px;margin:0 0 6px}.turn .player button{width:26px;height:26px}
.turn .wave{height:26px}
.stereo{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:18px;margin-bottom:12px}
.chart{width:100%;height:auto;display:block;overflow:visible}
.chart .grid{stroke:var(--rule)}.chart .axis{stroke:var(--soft);stroke-width:.8}
.chart .tick{fill:var(--soft);font-size:10.5px}.chart .name{font-size:12px;fill:var(--ink)}
.chart .line{fill:none;stroke:var(--tone);stroke-width:1.7;stroke-linejoin:round}
.chart .dot{fill:var(--tone)}.chart .bar{fill:var(--tone)}
.chart .faint{--tone:var(--soft);opacity:.32;stroke-width:1}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
.plot{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:12px 14px 8px}
.plot.wide{max-width:860px;margin-bottom:14px}
.plot h4{margin:0 0 6px;font-size:13px;font-weight:600}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;background:var(--paper);
border:1px solid var(--rule)}
th,td{padding:6px 10px;text-align:left;border-top:1px solid var(--rule);vertical-align:top}
th{font-size:12px;color:var(--soft);font-weight:600;border-top:0}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}th.n{text-align:right}
table.figures{table-layout:fixed;min-width:820px}
table.figures th:first-child{width:29%}table.figures th:last-child{width:19%}
table.figures th:nth-child(5){width:6%}table.figures th:nth-child(6){width:12%}
td small,th small{color:var(--soft);display:block;font-size:11.5px}
td.bad{color:var(--wrong)}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft);font-size:14px;padding:4px 0}
.item summary{font-size:13px}
ul.plain{padding-left:18px;margin:8px 0}
footer{max-width:1120px;margin:56px auto 40px;padding:16px 24px 0;border-top:1px solid var(--rule);
color:var(--soft);font-size:13px}
@media (max-width:760px){.versions,.stereo{grid-template-columns:1fr}main,header,nav div{padding-left:14px;
padding-right:14px}}
@media print{nav{display:none}}
"""

SCRIPT = """
let now=null;
const shown=t=>(t<10?t.toFixed(1):Math.round(t))+' s';
document.querySelectorAll('.player').forEach(p=>{
  const a=p.querySelector('audio'),w=p.querySelector('.wave'),t=p.querySelector('time'),whole=t.textContent;
  const stop=()=>{p.classList.remove('on')};
  const draw=()=>{if(a.duration)w.style.setProperty('--at',100*a.currentTime/a.duration+'%');
    t.textContent=shown(a.currentTime);if(!a.paused)requestAnimationFrame(draw)};
  p.querySelector('button').onclick=()=>{if(!a.paused)a.pause();
    else{if(now&&now!==a)now.pause();now=a;a.play()}};
  w.onclick=e=>{const r=w.getBoundingClientRect(),part=(e.clientX-r.left)/r.width;
    const go=()=>{a.currentTime=a.duration*part;draw()};
    if(a.readyState>0)go();else{a.onloadedmetadata=go;a.load()}};
  a.onplay=()=>{p.classList.add('on');draw()};a.onpause=stop;
  a.onended=()=>{stop();w.style.setProperty('--at','100%');t.textContent=whole};
});
"""
