"use strict";
// Every text comes from the web: it is only ever set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const builds = data.builds;
const names = data.names;
const number = new Intl.NumberFormat("en");
const PAGE = 20;

function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

function add(parent, ...nodes) {
  for (const node of nodes) parent.appendChild(node);
  return parent;
}

function shown(value) {
  return typeof value === "number" ? number.format(value) : value;
}

function table(caption, head, rows) {
  const node = make("table");
  node.appendChild(make("caption", caption));
  const top = make("tr");
  for (const cell of head) top.appendChild(make("th", cell, { scope: "col" }));
  add(node, add(make("thead"), top));
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, at) => {
      const words = typeof cell === "string" && !/^[+-]/.test(cell) ? { class: "words" } : {};
      line.appendChild(at ? make("td", shown(cell), words) : make("th", cell, { scope: "row" }));
    });
    body.appendChild(line);
  }
  node.appendChild(body);
  const box = make("div", null, { class: "scroll", tabindex: "0", role: "region" });
  box.setAttribute("aria-label", caption);
  return add(box, node);
}

// Rows of several builds beside each other: [name, value of the first, of the second, difference].
function joined(parts, column) {
  const rows = new Map();
  parts.forEach((part, at) => {
    for (const row of part) {
      if (!rows.has(row[0])) rows.set(row[0], parts.map(() => 0));
      rows.get(row[0])[at] += row[column];
    }
  });
  return [...rows].map(([name, values]) => {
    if (values.length === 1) return [name, ...values];
    const change = values[1] - values[0];
    return [name, ...values, (change > 0 ? "+" : "") + number.format(change)];
  });
}

function head(first) {
  return builds.length === 1 ? [first, names[0]] : [first, ...names, "difference"];
}

function section(id, title, notes) {
  const node = make("section", null, { id, "aria-labelledby": id + "-title" });
  node.appendChild(make("h2", title, { id: id + "-title" }));
  for (const note of notes) if (note) node.appendChild(make("p", note, { class: "note" }));
  document.getElementById("content").appendChild(node);
  document.getElementById("contents").appendChild(
    add(make("li"), make("a", title, { href: "#" + id })));
  return node;
}

function charted(node, chart, title, tables) {
  const pair = make("div", null, { class: "pair" });
  if (data.charts[chart]) {
    const image = make("img", null, {
      alt: "Bar chart: " + title + ". The table beside it has the numbers.",
      src: data.charts[chart], loading: "lazy" });
    pair.appendChild(add(make("div"), image));
  }
  pair.appendChild(add(make("div"), ...tables));
  node.appendChild(pair);
}

function overview() {
  const node = section("overview", "Overview", []);
  for (const build of builds) {
    node.appendChild(make("p", build.name + ": " + build.description));
  }
  const row = (title, of) => [title, ...builds.map(of)];
  node.appendChild(table("The corpora", ["what", ...names], [
    row("folder", (b) => b.folder), row("recipe", (b) => b.recipe),
    row("made with c4", (b) => b.version), row("oldest page", (b) => b.dates[0]),
    row("newest page", (b) => b.dates[1]), row("files read", (b) => b.files[0]),
    row("files unreadable", (b) => b.files[1]),
    row("pages written", (b) => b.pages[b.pages.length - 1][2]),
    row("bytes of text", (b) => b.bytes), row("words, by blanks", (b) => b.words),
  ]));
  const notes = builds.flatMap((build, at) =>
    build.notes.map((note) => (builds.length > 1 ? names[at] + ": " : "") + note));
  if (notes.length) {
    const list = make("ul", null, { class: "notes" });
    for (const note of notes) list.appendChild(make("li", note));
    node.appendChild(list);
  }
}

function flow(id, title, what) {
  const node = section(id, title, ["What each rule dropped, in the order of the rules, and what was left."]);
  const tables = [];
  if (builds.length === 1) {
    tables.push(table(what + " by rule", ["rule", "dropped", "left"], builds[0][id]));
  } else {
    const middle = builds.map((build) => build[id].slice(1, -1));
    const ends = builds.map((build) => [["read", build[id][0][2]],
      ["written", build[id][build[id].length - 1][2]]]);
    const both = joined(ends, 1);
    tables.push(table(what + " dropped by rule", head("rule"),
      [both[0], ...joined(middle, 1), both[1]]));
  }
  if (id === "pages") {
    const rejected = joined(builds.map((build) => build.rejected), 1);
    if (rejected.length) tables.push(table("records that never became pages", head("reason"), rejected));
  }
  charted(node, id, title, tables);
}

function distribution(id, title, caption, first, column, notes, key) {
  const node = section(id, title, notes);
  const rows = joined(builds.map((build) => build[key || id]), column);
  if (!rows.length) node.appendChild(make("p", "Nothing to show."));
  else charted(node, id, title, [table(caption, head(first), rows)]);
}

function lengthRows() {
  for (const build of builds) {
    build.lengths = build.lengths.map(([from, n]) =>
      [number.format(from) + " to " + number.format(2 * from - 1), n]);
  }
}

function link(url) {
  // An address that was cut or shows escapes would lead elsewhere.
  if (!/^https?:\/\/[^\s\\…]+$/i.test(url)) return make("span", url);
  return make("a", url, { href: url, rel: "noreferrer noopener nofollow", target: "_blank" });
}

function repeated() {
  const node = section("repeated", "Most repeated spans", [
    "Sentences that deduplication found most often, and pages that had them. One copy stayed."]);
  builds.forEach((build, at) => {
    if (builds.length > 1) node.appendChild(make("h3", names[at]));
    if (build.repeated_missing) {
      node.appendChild(make("p", "Counts may lack up to " + number.format(build.repeated_missing) +
        " copies.", { class: "note" }));
    }
    const list = make("ol", null, { class: "samples" });
    for (const span of build.repeated) {
      const item = make("li");
      add(item, make("h3", number.format(span.copies) + " copies"), make("blockquote", span.text));
      const pages = make("ul");
      for (const url of span.pages) pages.appendChild(add(make("li"), link(url)));
      list.appendChild(add(item, pages));
    }
    node.appendChild(build.repeated.length ? list : make("p", "No span is shown."));
  });
}

function marked(node, text, marks) {
  let at = 0;
  const lower = text.toLowerCase();
  while (marks.length) {
    let begin = -1, length = 0;
    for (const mark of marks) {
      const place = lower.indexOf(mark.toLowerCase(), at);
      if (place >= 0 && (begin < 0 || place < begin)) { begin = place; length = mark.length; }
    }
    if (begin < 0 || !length || lower.length !== text.length) break;
    node.appendChild(document.createTextNode(text.slice(at, begin)));
    node.appendChild(make("mark", text.slice(begin, begin + length)));
    at = begin + length;
  }
  node.appendChild(document.createTextNode(text.slice(at)));
}

const FINE = new Set(["", "kept"]);

function sample(page, rule, wanted) {
  const item = make("li");
  item.appendChild(add(make("h3"), page.url ? link(page.url) : make("span", rule)));
  if (page.note) {
    item.appendChild(add(make("p"), make(rule === "kept" ? "span" : "mark", page.note)));
  }
  const marks = wanted ? [...page.marks, wanted] : page.marks;
  for (const [verdict, text] of page.lines) {
    const line = make("div", null, { class: FINE.has(verdict) ? "line" : "line fatal" });
    const body = make("span", null, { class: "text", dir: "auto" });
    marked(body, text, marks);
    item.appendChild(add(line, make("span", verdict, { class: "verdict" }), body));
  }
  return item;
}

function samples() {
  const node = section("samples", "Samples", [
    "At most " + number.format(data.most) + " pages per rule, chosen by a hash of their addresses. " +
    "Counts are of all pages; the search covers these samples only. Red lines were dropped, with " +
    "the reason beside them."]);
  const form = make("form", null, { role: "search" });
  const field = (text, control) => add(make("label"), document.createTextNode(text), control);
  const build = make("select", null, { id: "build" });
  names.forEach((name, at) => build.appendChild(make("option", name, { value: String(at) })));
  const rule = make("select", null, { id: "rule" });
  const search = make("input", null, { id: "search", type: "search", autocomplete: "off" });
  if (builds.length > 1) form.appendChild(field("Build", build));
  add(form, field("Rule", rule), field("Search in the samples", search));
  const status = make("p", "", { role: "status", id: "found" });
  const list = make("ol", null, { class: "samples", id: "list" });
  const more = make("button", "Show more", { type: "button", id: "more" });
  let limit = PAGE;

  function counts(at) {
    const of = new Map(builds[at].pages.slice(1, -1).map((row) => [row[0], row[1]]));
    of.set("kept", builds[at].pages[builds[at].pages.length - 1][2]);
    of.set("rejected record", builds[at].rejected.reduce((sum, row) => sum + row[1], 0));
    return of;
  }

  function rules() {
    const before = rule.value;
    rule.textContent = "";
    const of = counts(Number(build.value));
    rule.appendChild(make("option", "all rules", { value: "*" }));
    for (const name of Object.keys(builds[Number(build.value)].samples)) {
      rule.appendChild(make("option", name + " (" + number.format(of.get(name) || 0) + ")",
        { value: name }));
    }
    rule.value = before;
    if (rule.selectedIndex < 0) rule.value = "*";
  }

  function show() {
    const wanted = search.value.trim().toLowerCase();
    const all = builds[Number(build.value)].samples;
    const chosen = Object.keys(all).filter((name) => rule.value === "*" || rule.value === name);
    const found = [];
    let sampled = 0;
    for (const name of chosen) {
      for (const page of all[name]) {
        sampled += 1;
        const text = [page.url, page.note, ...page.lines.map((line) => line[1])].join("\n");
        if (!wanted || text.toLowerCase().includes(wanted)) found.push([name, page]);
      }
    }
    list.textContent = "";
    for (const [name, page] of found.slice(0, limit)) {
      const item = sample(page, name, wanted);
      item.insertBefore(make("p", name, { class: "verdict" }), item.firstChild);
      list.appendChild(item);
    }
    const of = counts(Number(build.value));
    const total = chosen.reduce((sum, name) => sum + (of.get(name) || 0), 0);
    status.textContent = number.format(found.length) + " of " + number.format(sampled) +
      " sampled pages, out of " + number.format(total) + " that were read" +
      (found.length > limit ? "; the first " + limit + " are shown" : "");
    more.hidden = found.length <= limit;
  }

  function again() { limit = PAGE; show(); }
  build.addEventListener("change", () => { rules(); again(); });
  rule.addEventListener("change", again);
  search.addEventListener("input", again);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = list.children.length;
    limit += PAGE;
    show();
    const next = list.children[first];
    if (next) { next.setAttribute("tabindex", "-1"); next.focus(); }
  });
  add(node, form, status, list, more);
  rules();
  show();
}

document.getElementById("title").textContent = "Report: " + names.join(" and ");
document.title = "Report: " + names.join(" and ");
document.getElementById("no-script").remove();
lengthRows();
overview();
flow("pages", "Pages by rule", "pages");
flow("lines", "Lines by rule", "lines");
distribution("lengths", "Lengths", "pages by number of characters", "characters", 1, []);
distribution("languages", "Languages", "pages by language, most common first", "language", 1, []);
distribution("domains", "Top domains", "bytes of text by registered domain", "domain", 2,
  builds.map((b, at) => names[at] + ": " + number.format(b.domain_count) +
    (b.domain_count === 1 ? " domain in all" : " domains in all")));
distribution("years", "Years", "pages by year of their WARC-Date", "year", 1, []);
distribution("url_groups", "Duplicate addresses", "addresses by number of pages", "pages", 1,
  builds.map((b) => b.estimated[0] > 1 ? "Estimated from one in " + b.estimated[0] + "." : ""));
distribution("span_groups", "Duplicate spans", "spans by number of copies", "copies", 1,
  builds.map((b) => b.estimated[1] > 1 ? "Estimated from one in " + b.estimated[1] + "." : ""));
repeated();
samples();
