// Reads the /v1 endpoints and shows them. Text goes in as text, never as markup.
"use strict";

const REFRESH_MILLISECONDS = 5000;
const PAGE = 100;
const RESOURCES = ["vcpus", "pcpus", "memory_mib", "disk_mib"];
let shown = PAGE;
let chosen = null;

const part = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

function element(name, content, className) {
  const made = document.createElement(name);
  if (content instanceof Node) made.append(content);
  else made.textContent = content ?? "–";
  if (className) made.className = className;
  return made;
}

function time(text) {
  const made = element("time", text.replace("T", " ").replace(/\.\d+/, "").replace(/Z$|\+00:00$/, " UTC"));
  made.dateTime = text;
  return made;
}

function level(use) {
  if (!use) return element("td", "–");
  const cell = element("td", `${number.format(use.used)} of ${number.format(use.capacity)}`);
  const share = use.capacity > 0 ? Math.min(100, (100 * use.used) / use.capacity) : use.used > 0 ? 100 : 0;
  const bar = element("span", element("i", ""), share >= 95 ? "bar full" : "bar");
  bar.setAttribute("aria-hidden", "true");
  bar.firstChild.style.width = `${share}%`;
  cell.append(bar);
  return cell;
}

function state(node) {
  const words = [node.enabled ? "enabled" : "disabled"];
  if (node.reachable === false) words.push("unreachable");
  if (node.failed_builds > 0) words.push(`${node.failed_builds} failed builds`);
  return words.join(", ");
}

function nodeRow(node) {
  const open = element("button", node.node, "link");
  open.type = "button";
  open.addEventListener("click", () => choose(node.node));
  const name = element("th", open);
  name.scope = "row";
  const row = element("tr", name);
  row.append(element("td", state(node)), element("td", number.format(node.instances), "number"));
  for (const resource of RESOURCES) row.append(level(node.usage[resource]));
  return row;
}

function row(cells) {
  const made = document.createElement("tr");
  for (const [content, className] of cells) made.append(element("td", content, className));
  return made;
}

const amount = (value) => [number.format(value), "number"];

function fill(id, rows, columns) {
  const body = part(id).tBodies[0];
  if (rows.length === 0) {
    const nothing = element("td", "none");
    nothing.colSpan = columns;
    rows = [element("tr", nothing)];
  }
  const focused = document.activeElement?.closest(`#${id} tr`)?.rowIndex;
  body.replaceChildren(...rows);
  if (focused) part(id).rows[focused]?.querySelector("button")?.focus();
}

async function read(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

async function showTotals() {
  const totals = await read("/v1/usage");
  const items = [];
  for (const use of totals.resources) {
    items.push(element("div", element("dt", use.resource)));
    items.at(-1).append(element("dd", `${number.format(use.used)} of ${number.format(use.capacity)}`));
  }
  part("totals").replaceChildren(...items);
}

async function showNodes() {
  const rows = [];
  let after = "";
  do {
    const limit = Math.min(PAGE, shown - rows.length);
    const page = await read(`/v1/nodes?limit=${limit}&after=${encodeURIComponent(after)}`);
    rows.push(...page.nodes.map(nodeRow));
    after = page.next;
  } while (after && rows.length < shown);
  fill("nodes", rows, 7);
  part("more-nodes").hidden = !after;
}

function changes(line) {
  return Object.entries(line.changes)
    .filter(([resource]) => !resource.includes("/"))
    .map(([resource, change]) => row([
      [time(line.at)], [line.kind], [line.instance], [resource], amount(change.delta), amount(change.used_after),
    ]));
}

async function showNode() {
  part("node").hidden = chosen === null;
  if (chosen === null) return;
  const name = encodeURIComponent(chosen);
  const [node, history] = await Promise.all([read(`/v1/nodes/${name}`), read(`/v1/history?node=${name}&limit=20`)]);
  part("node-title").textContent = `Node ${chosen}`;
  fill("allocations", node.allocations.map((held) => row([
    [held.instance], [held.role], [held.project], amount(held.vcpus), amount(held.pcpus),
    amount(held.memory_mib), amount(held.disk_mib), [time(held.claimed_at)],
  ])), 8);
  fill("entries", history.entries.flatMap(changes), 6);
}

async function showDead() {
  const page = await read("/v1/dead-letters?state=open&limit=50");
  fill("dead", page.dead_letters.map((letter) => row([
    [letter.id, "number"], [letter.reason], [letter.detail], [letter.node], [letter.kind],
    [time(letter.first_seen)], amount(letter.attempts),
  ])), 7);
}

async function showHealth() {
  const answer = await fetch("/readyz");
  const health = await answer.json();
  say(health.ready ? "ready" : `not ready: ${health.problems.join("; ")}`);
}

function say(text) {
  const health = part("health");
  if (health.textContent !== text) health.textContent = text;
}

async function choose(name) {
  chosen = name;
  try {
    await showNode();
    part("node").focus();
  } catch (error) {
    say(`cannot read the ledger: ${error.message}`);
  }
}

async function refresh() {
  try {
    await Promise.all([showHealth(), showTotals(), showNodes(), showNode(), showDead()]);
  } catch (error) {
    say(`cannot read the ledger: ${error.message}`);
  }
  setTimeout(refresh, REFRESH_MILLISECONDS);
}

part("more-nodes").addEventListener("click", () => { shown += PAGE; showNodes(); });
refresh();
