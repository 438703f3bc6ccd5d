// Runs checks one after the other and prints, for each, one line of JSON: its name, and what it returned or threw.

export async function run(checks) {
  const deadline = setTimeout(() => process.exit(3), 60_000);
  for (const [check, act] of Object.entries(checks)) {
    try {
      console.log(JSON.stringify({ check, value: (await act()) ?? null }));
    } catch (error) {
      const { name, code, message } = error;
      console.log(JSON.stringify({ check, error: { name, code, message: String(message).slice(0, 300) } }));
    }
  }
  clearTimeout(deadline);
}

// What a promise throws, as a value.
export async function failure(promise) {
  try {
    await promise;
  } catch ({ name, code, message }) {
    return { name, code, message };
  }
  return null;
}
