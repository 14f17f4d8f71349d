// OHIF's settings here: this host's DICOMweb and no other server; studies are opened from the RIS, by their UID.
window.config = {
  name: 'Zambezi',
  routerBasename: '/',
  extensions: [],
  modes: [],
  // No tour over the images: it comes in English, and again in every browser.
  customizationService: [{ 'ohif.tours': { $set: [] } }],
  showStudyList: false,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  // HTTP/1.1 on thin lines: a browser opens six connections to a host.
  maxNumRequests: { interaction: 20, thumbnail: 6, prefetch: 6 },
  showErrorDetails: 'production',
  defaultDataSourceName: 'orthanc',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'orthanc',
      configuration: {
        friendlyName: 'Zambezi',
        name: 'orthanc',
        wadoUriRoot: '/wado',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        supportsReject: false,
        supportsStow: false,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        // Orthanc's DICOMweb reads no quotation marks in the type of a multipart request.
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};

// Whoever reads stays signed in.
const reading = Object.assign(document.createElement('script'), { src: '/reading.js', defer: true });
reading.dataset.opened = location.pathname + location.search;
document.head.append(reading);
