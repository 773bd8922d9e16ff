// Details of the experts: who is visited, by what score, and who else visits them.

details.experts = () => {
  const { layer, token } = state;
  const all = experts(layer, token);
  const visited = all.filter(({ weight }) => weight !== undefined);
  const byId = layers[layer].by_id;
  const others = model.n_routed_experts - all.length;
  return {
    title: "Mixture of experts",
    where: byId ? "a hash layer: routed by the token's number" : "routed by score",
    text: `${tokenChip(token)} visits ${visited.map(({ expert }) => `<b>${expert}</b>`).join(", ")} and the shared expert. ${byId ? `Every ${tokenChip(token)} of any text does: a table says so. The scores only weigh them.` : "The bias influences the choice, but not the weight."}`,
    body:
      scoreRows(all) +
      (others > 0 ? `<p class="note">The other ${others} experts have lower scores.</p>` : "") +
      visitorList(visited) +
      shapes([["x", [length, model.hidden_size]], ["gate", [model.n_routed_experts, model.hidden_size]], ["w1, w3 of each", [model.moe_intermediate_size, model.hidden_size]], ["w2 of each", [model.hidden_size, model.moe_intermediate_size]], ["out", [length, model.hidden_size]]]) +
      equation(`s = ${scoreWords()}\nweights = s[chosen]${model.scoring_func === "softmax" ? "" : " / Σ s[chosen]"} · ${model.routed_scaling_factor}\nout = Σ weight · expert(x) + shared(x)`),
  };
};

const scoreWords = () => ({ sqrtsoftplus: "√softplus(gate @ x)", sigmoid: "σ(gate @ x)", softmax: "softmax(gate @ x)" })[model.scoring_func];

function scoreRows(all) {
  const largest = Math.max(...all.map(({ score }) => score), 1e-30);
  const rows = [...all].sort((one, other) => one.expert - other.expert).map(({ expert, score, bias, weight }) => ({
    label: `<span class="expert-number${weight === undefined ? "" : " visited"}">${expert}</span>${weight === undefined ? "" : ` <b>weight ${weight.toFixed(2)}</b>`}`,
    part: score / largest,
    number: `${score.toFixed(2)}${bias === null ? "" : ` <small>${bias < 0 ? "−" : "+"}${Math.abs(bias).toFixed(2)}</small>`}`,
    kind: weight === undefined ? "outline" : "expert",
    share: score,
  }));
  return `<div id="gate">${block("Score of each expert", "filled: visited", bars(rows))}</div>`;
}

// For each visited expert the tokens of the text that it counts most for.
function visitorList(visited) {
  const rows = visited.map(({ expert }) => {
    const tokens = [...visitors(state.layer)[expert]].sort((one, other) => other[1] - one[1]);
    const different = [...new Set(tokens.map(([token]) => page.tokens[token][0]))].slice(0, 10);
    return `<p><span class="expert-number visited">${expert}</span> ${different.map(chip).join(" ")} <small>${several(tokens.length, "token")}</small></p>`;
  });
  return block("Who visits them", "the tokens with the largest weights", rows.join(""));
}
