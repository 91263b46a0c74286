// Which addresses are on this machine, and which HTTP proxy calls to the others go through.
//
// The rules are those of grpc-js: the first of `grpc_proxy`, `https_proxy` and `http_proxy` that is
// not empty names the proxy, and the first of `no_grpc_proxy` and `no_proxy` that is not empty lists
// the ends of host names, and the IPv4 networks, that are called directly.
'use strict';

const { BlockList, isIPv4, isIPv6 } = require('node:net');
const { hostname } = require('node:os');

const PROXY_VARIABLES = ['grpc_proxy', 'https_proxy', 'http_proxy'];
const DIRECT_VARIABLES = ['no_grpc_proxy', 'no_proxy'];
const SOCKET = /^unix:/;

function hostOf(target) {
  if (target.startsWith('[')) return target.slice(1).split(']')[0];
  return target.split(':').length > 2 ? target : target.split(':')[0];
}

/** Return the hosts of a gRPC address; none for a Unix socket. */
function targetHosts(address) {
  if (SOCKET.test(address)) return [];
  return address.replace(/^(dns:(\/\/[^/]*)?\/?|ipv[46]:)/, '').split(',').map(hostOf);
}

function isLoopbackHost(host) {
  const isName = /^localhost\.?$/i.test(host);
  const isIpv6 = isIPv6(host) && (/^[0:]*:0*1$/.test(host) || /^::ffff:127\./i.test(host));
  return isName || isIpv6 || (isIPv4(host) && host.startsWith('127.'));
}

/** Return whether calls to an address never leave this machine. */
function isLoopback(address) {
  return targetHosts(address).every(isLoopbackHost);
}

/**
 * Return whether calls to an address may never go through a proxy: those to this machine, and those
 * to a list of replicas, for which gRPC would ask a proxy as if the list were one host.
 */
function isDirect(address) {
  const hosts = targetHosts(address);
  if (hosts.length !== 1 || isLoopback(address)) return true;
  const [host] = hosts;
  return ['0.0.0.0', '::', hostname()].includes(host) || /\.localhost\.?$/i.test(host);
}

function isListed(host, entries) {
  return entries.split(',').some((entry) => {
    const [network, length] = entry.split('/');
    if (length !== undefined && isIPv4(network) && isIPv4(host)) {
      const prefix = parseInt(length, 10);
      if (!(prefix >= 0 && prefix <= 32)) return false;
      const networks = new BlockList();
      networks.addSubnet(network, prefix);
      return networks.check(host);
    }
    return host.endsWith(entry);
  });
}

/** Return what the message of a failed call ends with: the proxy in force, or nothing. */
function proxyNote(address, variables = process.env) {
  const variable = PROXY_VARIABLES.find((name) => variables[name]);
  if (variable === undefined || isDirect(address)) return '';
  let proxy;
  try {
    proxy = new URL(variables[variable]);
  } catch {
    return ''; // grpc-js logs that it cannot use it, and connects directly
  }
  const [host] = targetHosts(address);
  const direct = DIRECT_VARIABLES.find((name) => variables[name]);
  if (proxy.protocol !== 'http:' || (direct !== undefined && isListed(host, variables[direct]))) return '';
  return (
    `; calls go through the proxy ${proxy.hostname}:${proxy.port || 80}, which ${variable} names; ` +
    `to connect directly, add ${host} to ${direct || 'no_proxy'}`
  );
}

module.exports = { isDirect, isLoopback, proxyNote };
