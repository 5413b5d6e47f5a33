// An OpenID provider for tests: node server.mjs REDIRECT_URI. Prints its issuer, and ends with its standard input.
//
// Whoever the header `test-account` names is logged in at once, without a form. PUT /control/accounts/NAME sets the claims
// of an account; POST /control/rotate replaces the signing key.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The packages are outside of the sources: see .ci/npm.
const resolve = createRequire(`${process.env.OIDC_PROVIDER_MODULES}/`);
const { Provider } = await import(pathToFileURL(resolve.resolve('oidc-provider')));

const accounts = new Map();
const redirectUri = process.argv[2];

function signingKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' };
}

function provider(issuer) {
  const made = new Provider(issuer, {
    clients: [
      {
        client_id: 'muster',
        client_secret: 'a secret: with / odd + characters',
        redirect_uris: [redirectUri],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    jwks: { keys: [signingKey()] },
    scopes: ['openid', 'profile', 'groups'],
    claims: { openid: ['sub'], profile: ['preferred_username', 'name'], groups: ['groups'] },
    pkce: { required: () => true },
    cookies: { keys: ['of the test'] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, preferred_username: sub, ...accounts.get(sub) }),
    }),
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid profile groups');
      await grant.save();
      return grant;
    },
  });
  return { made, handle: made.callback() };
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString() || '{}');
}

let issuer;
let current;
const server = createServer(async (request, response) => {
  try {
    const path = new URL(request.url, issuer).pathname;
    if (path.startsWith('/control/accounts/')) {
      accounts.set(path.split('/').pop(), await body(request));
      response.end();
    } else if (path === '/control/rotate') {
      current = provider(issuer);
      response.end();
    } else if (path.startsWith('/interaction/')) {
      const result = { login: { accountId: request.headers['test-account'] } };
      await current.made.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    } else {
      await current.handle(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error.stack));
  }
});
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  current = provider(issuer);
  console.log(issuer);
});
process.stdin.on('end', () => process.exit(0)).resume();
