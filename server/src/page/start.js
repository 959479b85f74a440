// The start.

connect();
offerKinds();
readAddress();
pastSamples();
