// The one script of the backend's pages. Each page works without it; with it rows come by themselves, and a request of
// thousands of events stays fluid.
"use strict";

const UNITS = 10000; // of a bar's drawing, as in rendering.py

// --- the list ---------------------------------------------------------------------------------------------------

const MAX_ROWS = 300;

function followList(table) {
  const body = table.tBodies[0];
  const light = document.getElementById("live");
  const source = new EventSource(table.dataset.live);
  source.onopen = () => { light.hidden = false; };
  source.onerror = () => { light.hidden = source.readyState === EventSource.CLOSED; };
  source.onmessage = (message) => {
    const told = JSON.parse(message.data);
    const template = document.createElement("template");
    template.innerHTML = told.html; // made and escaped by the backend's own template
    place(body, template.content.querySelector("tr"));
    while (body.rows.length > MAX_ROWS) body.lastElementChild.remove();
    rescale(body);
    document.querySelectorAll(".empty").forEach((each) => each.remove());
  };
  addEventListener("pagehide", () => source.close());
}

function place(body, row) {
  const number = Number(row.dataset.number);
  const old = body.querySelector(`tr[data-number="${number}"]`);
  if (old) old.remove();
  row.classList.add("fresh");
  const after = [...body.rows].find((each) => Number(each.dataset.number) < number);
  body.insertBefore(row, after || null);
}

function rescale(body) {
  const longest = Math.max(...[...body.rows].map((row) => Number(row.dataset.duration)));
  for (const row of body.rows) {
    const part = longest ? Number(row.dataset.duration) / longest : 0;
    row.querySelector(".duration rect").setAttribute("width", Math.max(1, Math.round(part * UNITS)));
  }
}

// --- what a page has is started -----------------------------------------------------------------------------------

const table = document.querySelector("table[data-live]");
if (table) followList(table);
