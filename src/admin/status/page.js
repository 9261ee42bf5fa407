"use strict";
// Asks for the numbers every two seconds and shows them. What they hold is other people's input: it is set as text, never as markup.

const EVERY = 2000;
const NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

/** What was counted at the last answers, by pool: for rates, and the small lines. */
const pools = new Map();
const POINTS = 60;
let last = null;
let lastEvent = 0;
let seenEvents = false;

function el(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  for (const child of children) made.append(child);
  return made;
}
function text(id, value) {
  const at = $(id);
  if (at.textContent !== value) at.textContent = value;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (Math.abs(n) < 10000 ? whole.format(n) : short.format(n));
const rate = (n) => (n === 0 ? "0" : n < 10 ? n.toFixed(1) : count(n));
function time(micros) {
  if (micros === null || micros === undefined) return "–";
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1000).toFixed(micros < 1e4 ? 1 : 0)} ms`;
  return `${(micros / 1e6).toFixed(micros < 1e7 ? 1 : 0)} s`;
}
function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}
function age(milliseconds) {
  const s = Math.max(0, Math.round(milliseconds / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

/** Draws lines over each other, each with what is below it; a point that is null is a gap. */
function draw(svg, lines, least) {
  const [width, height, pad] = [300, 60, 3];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(least, ...lines.flatMap((line) => line.points.map((p) => p ?? 0)));
  const parts = [];
  for (const { points, name } of lines) {
    const step = width / Math.max(1, POINTS_OF(points) - 1);
    const shift = width - (points.length - 1) * step;
    const at = (value, i) => `${(shift + i * step).toFixed(1)},${(height - pad - (value / most) * (height - 2 * pad)).toFixed(1)}`;
    let run = [];
    const runs = [];
    points.forEach((value, i) => {
      if (value === null) { if (run.length) runs.push(run); run = []; } else run.push([i, at(value, i)]);
    });
    if (run.length) runs.push(run);
    for (const run of runs) {
      const line = run.map(([, p]) => p).join(" L");
      const x = (i) => (shift + i * step).toFixed(1);
      parts.push([`${name}-area`, `M${x(run[0][0])},${height} L${line} L${x(run.at(-1)[0])},${height} Z`], [name, `M${line}`]);
    }
  }
  svg.replaceChildren(...parts.map(([name, d]) => {
    const path = document.createElementNS(NS, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    return path;
  }));
}
const POINTS_OF = (points) => (points.length > POINTS ? 150 : POINTS);

/** Parts of a whole, as a bar. Widths are set by the object model, which the policy of the page allows. */
function bar(at, parts, all) {
  const made = parts.filter(([, n]) => n > 0).map(([name, n]) => {
    const part = el("i", name);
    part.style.width = `${all > 0 ? Math.min(100, (100 * n) / all) : 0}%`;
    return part;
  });
  at.replaceChildren(...made);
}
function key(at, parts) {
  at.replaceChildren(...parts.map(([name, n]) => el("span", "", el("span", `dot ${name}`), `${count(n)} ${name}`)));
}
function list(at, pairs) {
  at.replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", "", name), el("dd", "", value)]));
}

function glance(now) {
  const point = now.history.at(-1);
  const line = (name) => now.history.map((p) => p[name]);
  text("tps", point ? rate(point.transactions) : "–");
  text("qps", point ? rate(point.queries) : "–");
  text("p50", time(point?.p50));
  text("p99", time(point?.p99));
  text("wait", time(point?.wait_p99));
  draw($("tps-line"), [{ points: line("transactions"), name: "first" }], 1);
  draw($("latency-line"), [{ points: line("p99"), name: "second" }, { points: line("p50"), name: "first" }], 100);
  const { idle, active, waiting, servers, busy } = now.totals;
  text("clients", count(now.clients));
  text("client-limit", `of ${count(now.max_clients)}`);
  bar($("client-bar"), [["active", active], ["waiting", waiting], ["idle", idle]], idle + active + waiting);
  key($("client-key"), [["active", active], ["waiting", waiting], ["idle", idle]]);
  const pinned = now.pools.reduce((sum, pool) => sum + pool.pinned, 0);
  const free = Math.max(0, servers - busy);
  text("servers", count(servers));
  bar($("server-bar"), [["active", busy], ["idle", free]], servers);
  key($("server-key"), [["active", busy], ["idle", free], ...(pinned ? [["pinned", pinned]] : [])]);
  const seconds = last ? (now.now - last.now) / 1000 : 0;
  const cpu = seconds > 0 && now.cpu !== null && last.cpu !== null ? `${((now.cpu - last.cpu) / 1e4 / seconds).toFixed(0)} % of a core` : "–";
  list($("process"), [
    ["Processor", cpu],
    ["Memory", now.memory === null ? "–" : bytes(now.memory)],
    ["Workers", String(now.workers)],
    ["Ready", now.why_not_ready ?? "yes"],
  ]);
}

const ROLES = { primary: "main", replica: "blue", down: "bad", fenced: "bad" };
function nodes(now) {
  $("topology").hidden = now.nodes.length === 0;
  const databases = Map.groupBy ? Map.groupBy(now.nodes, (n) => n.database) : group(now.nodes);
  $("nodes").replaceChildren(...[...databases].map(([name, all]) => {
    const leaders = all.filter((n) => n.role === "primary");
    const others = all.filter((n) => n.role !== "primary");
    const tree = el("div", "tree", el("div", "leaders", ...leaders.map(node)), el("div", "followers", ...others.map(node)));
    if (leaders.length) tree.classList.add("linked");
    if (!leaders.length) tree.firstChild.append(el("p", "chip bad", "no primary"));
    return el("article", "database", el("h3", "", name), tree);
  }));
}
function group(all) {
  const groups = new Map();
  for (const n of all) groups.set(n.database, [...(groups.get(n.database) ?? []), n]);
  return groups;
}
function node(n) {
  const facts = [];
  if (n.role === "replica") facts.push(n.lag === null ? "lag unknown" : `${time(n.lag)} behind`);
  if (n.role === "replica" && n.lag_bytes > 0) facts.push(bytes(n.lag_bytes));
  facts.push(`${n.busy} at work`);
  if (n.timeline) facts.push(`timeline ${n.timeline}`);
  const card = el("div", `node ${n.role}`,
    el("p", "name", n.node, el("span", `chip ${ROLES[n.role] ?? ""}`, n.role)),
    el("p", "facts", facts.join(" · ")));
  if (n.reason) card.append(el("p", "reason", n.reason));
  return card;
}

function followed(pool, now) {
  const name = JSON.stringify([pool.database, pool.user, pool.node]);
  const known = pools.get(name) ?? { points: [], at: 0, transactions: 0 };
  if (known.at && known.at < now.now) {
    const seconds = (now.now - known.at) / 1000;
    known.points.push(Math.max(0, pool.transactions - known.transactions) / seconds);
    if (known.points.length > POINTS) known.points.shift();
  }
  Object.assign(known, { at: now.now, transactions: pool.transactions });
  pools.set(name, known);
  return known.points;
}
function poolRows(now) {
  const states = new Map(now.databases.map((d) => [d.name, d.paused ? "paused" : d.disabled ? "disabled" : ""]));
  $("pools").replaceChildren(...now.pools.map((pool) => {
    const name = el("td", "name", pool.database);
    if (states.get(pool.database)) name.append(" ", el("span", "chip warn", states.get(pool.database)));
    if (pool.node) name.append(el("small", "", pool.node));
    if (pool.unreachable) name.append(" ", el("span", "chip bad", "unreachable"));
    const load = el("div", "bar");
    bar(load, [["active", pool.busy - Math.min(pool.busy, pool.pinned)], ["pinned", Math.min(pool.busy, pool.pinned)], ["idle", pool.free]], Math.max(pool.size, pool.counted));
    const servers = `${pool.busy} of ${pool.size || "∞"} at work` + (pool.pinned ? `, ${pool.pinned} pinned` : "");
    const waiting = pool.waiting ? el("span", "chip warn", `${count(pool.waiting)} · ${time(pool.longest_wait)}`) : el("small", "", "–");
    const points = followed(pool, now);
    const line = document.createElementNS(NS, "svg");
    line.setAttribute("class", "spark");
    line.setAttribute("preserveAspectRatio", "none");
    line.setAttribute("aria-hidden", "true");
    draw(line, [{ points, name: "first" }], 1);
    return el("tr", "",
      name,
      el("td", "name", pool.user),
      el("td", "", load, el("small", "", servers)),
      el("td", "", count(pool.idle + pool.active + pool.waiting), el("small", "", pool.active ? ` · ${count(pool.active)} active` : "")),
      el("td", "", waiting),
      el("td", "", line, el("small", "", ` ${points.length ? rate(points.at(-1)) : "–"}/s`)),
      el("td", "number", time(pool.p50)),
      el("td", "number", time(pool.p99)));
  }));
  const more = now.pool_count - now.pools.length;
  text("pool-count", more > 0 ? `the ${now.pools.length} busiest of ${now.pool_count}` : "");
  $("no-pools").hidden = now.pools.length > 0;
  for (const [name, known] of pools) if (known.at < now.now - 60000) pools.delete(name);
}

function statements(now) {
  $("top").hidden = now.statements === null;
  if (now.statements === null) return;
  $("no-statements").hidden = now.statements.length > 0;
  const all = now.statements.reduce((sum, s) => sum + s.time, 0);
  $("statements").replaceChildren(...now.statements.map((s) => {
    const share = el("div", "bar");
    bar(share, [["active", s.time]], all);
    const code = el("code", "", s.text);
    code.title = s.text;
    return el("tr", "",
      el("td", "text", code, el("small", "", [s.database, s.user, s.node].filter(Boolean).join(" · "))),
      el("td", "share", share, el("small", "", time(s.time))),
      el("td", "number", count(s.calls)),
      el("td", "number", time(s.calls ? Math.round(s.time / s.calls) : 0)),
      el("td", "number", time(s.longest)),
      el("td", s.errors ? "number bad-text" : "number", count(s.errors)));
  }));
}

const KINDS = { failover: "main", node: "blue", command: "warn", configuration: "main", takeover: "main" };
function events(now) {
  $("events").replaceChildren(...now.events.map((event) => {
    const at = new Date(event.at);
    const when = el("time", "", now.now - event.at < 86400000 ? at.toLocaleTimeString() : at.toLocaleDateString());
    when.dateTime = at.toISOString();
    when.title = at.toString();
    const what = el("span", "what");
    if (event.database) what.append(el("b", "", event.database), " ");
    what.append(event.text);
    const line = el("li", seenEvents && event.number > lastEvent ? "new" : "", when, el("span", `chip ${event.bad ? "bad" : KINDS[event.kind] ?? ""}`, event.kind), what);
    line.dataset.kind = event.kind;
    return line;
  }));
  lastEvent = now.events.length ? now.events[0].number : lastEvent;
  seenEvents = true;
}

function counts(now) {
  const totals = now.totals;
  const pairs = [["Transactions", count(totals.transactions)], ["Queries", count(totals.queries)]];
  if (now.nodes.length) pairs.push(["Stale reads avoided", count(totals.stale_reads_avoided)], ["Sent again elsewhere", count(totals.retries)]);
  for (const [reason, n] of Object.entries(now.pins)) pairs.push([`Pinned by ${reason}`, count(n)]);
  for (const [code, n] of Object.entries(now.errors).sort((a, b) => b[1] - a[1]).slice(0, 8)) pairs.push([`Errors ${code}`, count(n)]);
  for (const [reason, n] of Object.entries(now.failed_logins)) pairs.push([`Failed logins: ${reason.replaceAll("_", " ")}`, count(n)]);
  list($("counts"), pairs);
}

function show(now) {
  document.title = now.totals.waiting ? `(${now.totals.waiting} waiting) pooler` : "pooler";
  text("version", now.version);
  const state = $("state");
  const bad = now.state === "running" && now.why_not_ready;
  state.className = `chip ${now.state !== "running" ? "warn" : bad ? "bad" : "good"}`;
  text("state", bad ? now.why_not_ready : now.state);
  text("uptime", `up ${age(now.now - now.started)}`);
  glance(now);
  nodes(now);
  poolRows(now);
  statements(now);
  events(now);
  counts(now);
  last = now;
}

let received = 0;
function complain(what) {
  $("notice").hidden = !what;
  text("notice", what);
}
async function ask() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(10000) });
    if (answer.status === 401) {
      complain("The password is not accepted any more. Load the page again to log in.");
      return false;
    }
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
    received = Date.now();
    complain("");
  } catch (error) {
    complain(error instanceof TypeError || error.name === "TimeoutError" ? "pooler does not answer." : String(error.message).trim());
  }
  return true;
}
async function follow() {
  // Nobody sees it: nothing is asked for.
  const goes = document.hidden ? true : await ask();
  if (goes) setTimeout(follow, EVERY);
}
setInterval(() => {
  const old = received ? Date.now() - received : 0;
  $("live").className = old > 3 * EVERY ? "live late" : "live";
  text("live", received ? (old > 3 * EVERY ? `${age(old)} ago` : "live") : "");
}, 500);
follow();
