// What tests/integration/test_node_client.py runs: one scenario, whose result is printed as JSON.
'use strict';

const readline = require('node:readline');
const { AdvisorClient } = require('..');

const [, , name, address, optionsText] = process.argv;
const { opening, unitRates, ...options } = JSON.parse(optionsText);
const measurement = (step) => ({ step, unitRates, intervalSteps: step ? 25 : 0 });

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    const { code, codeName, reason, metadata, retryDelayMs, message } = error;
    return { code, codeName, reason, metadata, retryDelayMs, message };
  }
  return null;
}

const scenarios = {
  async exchange(client) {
    const session = client.openRun(opening);
    const answers = await Promise.all([0, 25, 50].map((step) => session.recommend(measurement(step))));
    const once = await client.recommendOnce(opening, measurement(0));
    const mapping = await client.validateLayout(opening);
    await session.close();
    const closed = await failure(session.recommend(measurement(75)));
    return { answers, once, mapping, closed };
  },

  async refusals(client) {
    const unknown = { ...opening, profile: `${opening.profile}-unknown` };
    const session = client.openRun(opening);
    const invalid = await failure(session.recommend({ step: -1, unitRates }));
    const after = await session.recommend(measurement(0));
    session.close();
    return {
      unknown: await failure(client.recommendOnce(unknown, measurement(0))),
      invalid,
      after: after.step,
    };
  },

  // Waits for a line on standard input between two measurements, while the service restarts.
  async reconnect(client) {
    const session = client.openRun(opening);
    const first = await session.recommend(measurement(0));
    console.log('first');
    await new Promise((resolve) => readline.createInterface(process.stdin).once('line', resolve));
    const second = await session.recommend(measurement(25));
    session.close();
    return { steps: [first.step, second.step] };
  },

  async generic(client) {
    const found = await client.call('RecipeService', 'ListRecipes', { parent: 'projects/default' });
    return {
      recipes: found.shipped,
      service: await failure(client.call('NoService', 'ListRecipes')),
      method: await failure(client.call('RunService', 'WatchRun')),
      unset: await failure(client.call('RecipeService', 'GetRecipe')),
    };
  },

  async status(client) {
    return (await failure(client.status())) || (await client.status());
  },
};

async function main() {
  const client = new AdvisorClient(address, options);
  try {
    console.log(JSON.stringify(await scenarios[name](client)));
  } finally {
    client.close();
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
