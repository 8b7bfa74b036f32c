"use strict";
(() => {
  const data = JSON.parse(document.getElementById("scores").textContent);
  const pick = (id) => document.getElementById(id);
  const list = pick("solutions-list");
  const cards = Array.from(list.children);
  const minus = "\u2212";
  const signed = (x) => {
    if (x === null) return "abstains";
    const text = Math.abs(x).toFixed(2);
    return Number(text) === 0 ? text : (x > 0 ? "+" : minus) + text;
  };
  const shade = (x) => {
    if (x === null) return "v x";
    const k = Math.min(10, Math.round(Math.abs(x) * 10));
    return "v" + (k === 0 ? "" : (x > 0 ? " p k" : " n k") + k);
  };
  const repaint = (card, said) => {
    const cells = card.querySelectorAll(".cell");
    const steps = card.querySelectorAll(".step");
    said.values.forEach((value, i) => {
      const named = said.first_error === i;
      const first = cells[i].classList.contains("first");
      cells[i].className = "cell " + shade(value) + (first ? " first" : "") + (named ? " named" : "");
      cells[i].title = cells[i].dataset.about + ", value " + signed(value) + (named ? ", named" : "");
      steps[i].className = "step " + shade(value);
      steps[i].querySelector(".value").textContent = signed(value);
      steps[i].querySelector(".flag.model").hidden = !named;
    });
    card.querySelector(".apart b").textContent = said.disagreement === null ? "\u2013" : said.disagreement.toFixed(2);
  };
  const update = () => {
    const scorer = pick("scorer").value, subset = pick("subset").value, why = pick("why").value;
    const sort = pick("sort").value;
    const of = (card) => data.solutions[card.dataset.index];
    const said = (card) => of(card).scorers[scorer];
    const keys = {
      disagreement: (card) => -(said(card).disagreement ?? -1),
      steps: (card) => -said(card).values.length,
      listed: (card) => Number(card.dataset.index),
    };
    let shown = 0;
    cards.forEach((card) => {
      repaint(card, said(card));
      const fits = (!subset || of(card).subset === subset) && (!why || of(card).why.includes(why));
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    cards.slice().sort((a, b) => keys[sort](a) - keys[sort](b)).forEach((card) => list.append(card));
    document.querySelectorAll("[data-scorer]").forEach((part) => { part.hidden = part.dataset.scorer !== scorer; });
    pick("count").textContent = shown + " of " + cards.length + " solutions";
  };
  const choose = (from, to) => pick(from).addEventListener("change", () => { pick(to).value = pick(from).value; update(); });
  choose("scorer", "scorer-of-figures");
  choose("scorer-of-figures", "scorer");
  ["subset", "why", "sort"].forEach((id) => pick(id).addEventListener("change", update));
  pick("open").addEventListener("click", () => {
    const closed = cards.some((card) => !card.hidden && !card.open);
    cards.forEach((card) => { card.open = closed && !card.hidden; });
  });
  document.querySelectorAll(".controls").forEach((part) => { part.hidden = false; });
  update();
})();
