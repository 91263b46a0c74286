// A client of the advisor: calls, streams, TLS, tokens and errors with reasons.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { randomUUID } = require('node:crypto');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { ServiceError, serviceError } = require('./errors');
const { isDirect, isLoopback } = require('./proxies');
const { RunSession } = require('./session');

const PROTOS = path.join(__dirname, '..', '..', 'protos');
const PACKAGE = 'fslr.advisor.v1';
const LOADER = { keepCase: false, longs: Number, enums: String, bytes: Buffer, defaults: true };

/** Return the files of the services in a folder of protos. */
function serviceFiles(protos) {
  const folder = PACKAGE.replaceAll('.', '/');
  const names = fs.readdirSync(path.join(protos, folder)).sort();
  return names.filter((name) => name.endsWith('_service.proto')).map((name) => `${folder}/${name}`);
}

/** Return the settings of a channel to the services at an address. */
function channelOptions(address, services) {
  return {
    // A token without TLS must not leave this machine.
    ...(isDirect(address) ? { 'grpc.enable_http_proxy': 0 } : {}),
    'grpc.keepalive_time_ms': 60_000, // the service permits more, also without calls
    'grpc.keepalive_timeout_ms': 20_000,
    // Calls fail at once while a channel waits to connect again, by default for up to two minutes.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 800,
    'grpc.max_receive_message_length': -1,
    'grpc.service_config': JSON.stringify({
      loadBalancingConfig: [{ round_robin: {} }],
      methodConfig: [
        {
          name: services.map((name) => ({ service: `${PACKAGE}.${name}` })),
          retryPolicy: {
            maxAttempts: 4,
            initialBackoff: '0.05s',
            maxBackoff: '1s',
            backoffMultiplier: 2,
            retryableStatusCodes: ['UNAVAILABLE'],
          },
        },
        // Sessions reconnect themselves.
        { name: [{ service: `${PACKAGE}.AdvisorService`, method: 'RecommendLR' }] },
      ],
    }),
  };
}

/** A client of one advisor service; every method throws ServiceError. */
class AdvisorClient {
  constructor(address, options = {}) {
    const { token = process.env.FSLR_TOKEN || '', actor = '', deadlineMs = 10_000 } = options;
    const { ca = process.env.FSLR_TLS_CA, cert, key, allowInsecure = false } = options;
    if (token && !ca && !allowInsecure && !isLoopback(address)) {
      throw new TypeError(
        `the token would be sent to ${address} unencrypted; pass ca, the file of the advisor's ` +
          'certificate authority, or, in a trusted network, allowInsecure: true',
      );
    }
    this.address = address;
    this.deadlineMs = deadlineMs;
    this._metadata = new grpc.Metadata();
    if (token) this._metadata.set('authorization', `Bearer ${token}`);
    if (actor) this._metadata.set('fslr-actor', encodeURIComponent(actor));
    const read = (file) => (file ? fs.readFileSync(file) : null);
    const credentials = ca
      ? grpc.credentials.createSsl(read(ca), read(key), read(cert))
      : grpc.credentials.createInsecure();
    const protos = options.protos || PROTOS;
    const definition = protoLoader.loadSync(serviceFiles(protos), { ...LOADER, includeDirs: [protos] });
    const { v1 } = grpc.loadPackageDefinition(definition).fslr.advisor;
    const services = Object.keys(v1).filter((name) => v1[name].service);
    this._channel = new grpc.Channel(address, credentials, channelOptions(address, services));
    this._services = {};
    for (const name of services) {
      this._services[name] = new v1[name](address, credentials, { channelOverride: this._channel });
    }
  }

  /** Return a session for a run; its stream opens with the first measurement. */
  openRun(opening) {
    const start = () => this._services.AdvisorService.RecommendLR(this._metadata.clone());
    return new RunSession(start, opening, this.deadlineMs, this.address);
  }

  /** Return the answer to one measurement, without a stream. */
  recommendOnce(opening, measurement) {
    return this.call('AdvisorService', 'RecommendLROnce', { opening, measurement });
  }

  /** Return how a layout maps onto a profile, and why a run would be refused. */
  validateLayout({ profile, ...opening }) {
    const { layout, policy, optimizer, trainingRatios, recipe, totalSteps, batchSize } = opening;
    const training = { optimizer, trainingRatios, recipe, totalSteps, batchSize };
    const request = { name: profile, layout, policy, ...training };
    return this.call('ProfileService', 'ValidateLayout', request);
  }

  /** Store a profile; content that is already stored keeps its version. */
  registerProfile(name, content, requestId = randomUUID()) {
    return this.call('ProfileService', 'RegisterProfile', { name, content, requestId });
  }

  /** Return one version of a profile, with the profile's versions and aliases. */
  getProfile(name) {
    return this.call('ProfileService', 'GetProfile', { name });
  }

  /** Return a stored run. */
  getRun(name) {
    return this.call('RunService', 'GetRun', { name });
  }

  /** Return the status of the service, and who it takes the caller for. */
  status() {
    return this.call('StatusService', 'GetStatus', {});
  }

  /** Return the response of any method without a stream, such as `call('RecipeService', 'ListRecipes')`. */
  async call(service, method, request = {}) {
    const stub = this._services[service];
    if (!stub) {
      throw new TypeError(`there is no service ${service}; use ${Object.keys(this._services).join(', ')}`);
    }
    const methods = Object.values(stub.constructor.service).filter(
      ({ requestStream, responseStream }) => !requestStream && !responseStream,
    );
    const names = methods.map(({ path: full }) => full.split('/').pop());
    if (!names.includes(method)) {
      throw new TypeError(`${service} has no method ${method} without a stream; use ${names.join(', ')}`);
    }
    const options = { deadline: Date.now() + this.deadlineMs };
    return new Promise((resolve, reject) => {
      stub[method](request, this._metadata.clone(), options, (error, response) =>
        error ? reject(serviceError(error, this.address)) : resolve(response),
      );
    });
  }

  /** Close the connection. */
  close() {
    this._channel.close();
  }
}

module.exports = { AdvisorClient, RunSession, ServiceError };
